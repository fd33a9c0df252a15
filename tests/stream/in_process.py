"""Jobs whose workers live in the process of the test: small ones would mostly wait for starts."""

import json
from contextlib import contextmanager
from unittest import mock

from ape_stream.batch import run, workers
from ape_stream.batch.job import Event
from ape_stream.batch.worker import Worker
from ape_stream.closing import Closing


class InProcess(Closing):
    """A pool whose `send` returns when the task is done."""

    def __init__(self, slots, setup, post):
        self.slots, self.post = slots, post
        self.workers = {slot: Worker(setup) for slot in slots}

    def send(self, slot, task):
        def emit(kind, value=None, *, retry=False):
            # As between processes: what is not JSON fails here as well.
            self.post(Event(slot, task.number, kind, json.loads(json.dumps(value)), retry))

        self.workers[slot].run(task, emit)

    def kill(self, slot):
        raise AssertionError(f"{slot} gave no sign of life")

    def close(self, _=None):
        pass


@contextmanager
def without_processes():
    """A context whose jobs start none: for what does not depend on how workers end."""
    with (
        mock.patch.object(workers, "ProcessPool", InProcess),
        mock.patch.object(run, "ProcessPool", InProcess),
    ):
        yield


class Silent:
    """A listener that keeps nothing."""

    def progress(self, progress):
        pass

    def clip(self, state):
        pass

    def note(self, line):
        pass
