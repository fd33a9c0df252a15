"""The first question to a worker, and workers that end before they could read it."""

import sys
import threading
from queue import Queue

import pytest

from ape_stream.batch.job import Event, Setup, Task
from ape_stream.batch.processes import ProcessPool
from ape_stream.batch.selection import Selection
from ape_stream.batch.workers import Engine, identify
from ape_stream.errors import ApeStreamError, ConfigError, PipelineError, StoppedError


class Answers:
    """A pool of one worker that gives these events, each to one task."""

    slots = ("find 1",)

    def __init__(self, *answers):
        self.events, self.answers = Queue(), [*answers]

    def send(self, slot, task):
        if self.answers:
            self.events.put(Event(slot, task.number, "started"))
            self.events.put(Event(slot, task.number, *self.answers.pop(0)))


DIED = ("died", ("its worker was killed by SIGKILL", "last words"))


def asked(*answers):
    pool = Answers(*answers)
    return identify(pool, pool.events, threading.Event())


def test_a_worker_that_is_killed_at_the_first_question_is_asked_again():
    assert asked(DIED, DIED, ("done", {"weights": "abc"})) == {"weights": "abc"}


def test_a_model_that_kills_its_worker_each_time_ends_the_run():
    with pytest.raises(PipelineError, match=r"cannot be made: its worker was killed .* last words"):
        asked(*[DIED] * 10, ("done", {}))


def test_an_answer_that_says_no_ends_the_run_at_once():
    with pytest.raises(ApeStreamError, match="no such file"):
        asked(("fatal", "no such file"), ("done", {}))


def test_the_first_question_can_be_stopped():
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        identify(Answers(), Queue(), stop)


def test_there_are_two_engines():
    with pytest.raises(ConfigError, match="--engine is processes or ray, not 'dask'"):
        Engine(kind="dask")


def test_a_process_that_ends_before_it_is_asked_is_the_death_of_its_task(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    # More than a pipe holds: the process has ended before all of it is written.
    setup = Setup("none:none", {"long": "x" * 1_000_000}, "", None, Selection(), {}, 8)
    events = Queue()
    with ProcessPool(("find 1",), setup, events.put) as pool:
        pool.send("find 1", Task(7, "identify"))
        event = events.get(timeout=30)
    assert (event.task, event.kind) == (7, "died")
