"""What a run does about workers that die before they were asked for a clip."""

import threading

import pytest

from ape_stream.batch.clips import Clip
from ape_stream.batch.folder import OutFolder
from ape_stream.batch.job import Event
from ape_stream.batch.schedule import Schedule
from ape_stream.batch.state import ClipState, Silent
from ape_stream.errors import ApeStreamError, PipelineError, StoppedError


class Answers:
    """A pool of one worker that gives these events, each to one task."""

    slots = ("find 1",)

    def __init__(self, schedule, *events):
        self.schedule, self.events = schedule, [*events]

    def send(self, slot, task):
        if self.events:
            self.schedule.events.put(Event(slot, task.number, "started"))
            self.schedule.events.put(Event(slot, task.number, *self.events.pop(0)))


DIED = ("died", ("its worker was killed by SIGKILL", "last words"))


@pytest.fixture
def schedule(tmp_path):
    return Schedule(OutFolder(tmp_path), shard_frames=8, stall_s=9)


def test_a_worker_that_is_killed_at_the_first_question_is_asked_again(schedule):
    pool = Answers(schedule, DIED, DIED, ("done", {"weights": "abc"}))
    assert schedule.identify(pool, threading.Event()) == {"weights": "abc"}


def test_a_model_that_kills_its_worker_each_time_ends_the_run(schedule):
    pool = Answers(schedule, *[DIED] * 10, ("done", {}))
    with pytest.raises(PipelineError, match=r"cannot be made: its worker was killed .* last words"):
        schedule.identify(pool, threading.Event())


def test_an_answer_that_says_no_ends_the_run_at_once(schedule):
    pool = Answers(schedule, ("fatal", "no such file"), ("done", {}))
    with pytest.raises(ApeStreamError, match="no such file"):
        schedule.identify(pool, threading.Event())


def test_the_first_question_can_be_stopped(schedule):
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        schedule.identify(Answers(schedule), stop)


def test_time_left_counts_clips_of_unknown_length_like_the_others(schedule, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    states = [ClipState(Clip(str(k), f"{k}.mp4", 1, "digest")) for k in range(4)]
    schedule._states = states
    assert schedule.progress().left_s is None  # nothing is known
    states[0].expected, states[1].expected, states[1].probed = 300, 100, True
    schedule._finding.add(0)
    now[0] += 2.0
    schedule._finding.add(100)  # 50 frames/s
    states[0].frames = 100
    standing = schedule.progress()
    assert standing.left_s == pytest.approx((200 + 100 + 2 * 200) / 50)
    assert standing.expected is None


class Deaths:
    """A pool whose workers die at these frames, one task after the other; then all goes well."""

    slots = ("find 1",)

    def __init__(self, schedule, out, *frames):
        self.schedule, self.out, self.frames = schedule, out, [*frames]

    def send(self, slot, task):
        post = lambda kind, value=None: self.schedule.events.put(  # noqa: E731
            Event(slot, task.number, kind, value)
        )
        if self.frames and (at := self.frames.pop(0)) is None:
            post("died", ("killed", ""))
            return
        post("started")
        if task.kind == "find" and self.frames:
            post("open", at // 8)
            post("frames", at % 8)
            post("died", ("killed", ""))
        elif task.kind == "find":
            self.out.shards(task.clip).write(0, [b"x"] * 4, {"frames": 4, "problem": None})
            post("done")
        else:
            post("done", {"files": [], "found": {"frames": 4}})


def worked(schedule, tmp_path, *frames):
    out = OutFolder(tmp_path)
    state = ClipState(Clip("a", "a.mp4", 1, "digest"), expected=4, probed=True)
    pool = Deaths(schedule, out, *frames)
    schedule.run([state], "digest", (pool, pool), Silent(), threading.Event())
    return state


def test_deaths_all_over_a_clip_are_not_the_clips_fault(schedule, tmp_path):
    assert worked(schedule, tmp_path, 3, 40, 2, 90, 7, 0).status == "done"


def test_deaths_at_one_frame_put_the_clip_aside(schedule, tmp_path):
    state = worked(schedule, tmp_path, 3, 40, 41, 44, 0)
    assert (state.status, len(state.attempts)) == ("failed", 4)


def test_workers_that_die_before_they_begin_are_not_the_clips_fault(schedule, tmp_path):
    assert worked(schedule, tmp_path, *[None] * 9, 3, *[None] * 5, 0).status == "done"


def test_workers_that_never_begin_end_the_run(schedule, tmp_path):
    with pytest.raises(ApeStreamError, match="10 workers died before they began: killed"):
        worked(schedule, tmp_path, *[None] * 11)
