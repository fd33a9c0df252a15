"""What a run does about workers that die, and what it reports."""

import threading
from queue import Queue

import pytest
from in_process import Silent

from ape_stream.batch.clips import Clip
from ape_stream.batch.folder import OutFolder
from ape_stream.batch.job import Event
from ape_stream.batch.schedule import Schedule
from ape_stream.batch.state import ClipState
from ape_stream.errors import ApeStreamError


class Deaths:
    """A pool whose workers die at these frames, one task after the other; then all goes well."""

    slots = ("find 1",)

    def __init__(self, out, *frames):
        self.events, self.out, self.frames = Queue(), out, [*frames]

    def send(self, slot, task):
        def post(kind, value=None):
            self.events.put(Event(slot, task.number, kind, value))

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


def schedule_of(states, pool):
    return Schedule(
        pool.out, states, "digest", (pool, pool), pool.events, Silent(), shard_frames=8, stall_s=9
    )


def worked(tmp_path, *frames):
    state = ClipState(Clip("a", "a.mp4", 1, "digest"), expected=4, probed=True)
    schedule_of([state], Deaths(OutFolder(tmp_path), *frames)).run(threading.Event())
    return state


def test_deaths_all_over_a_clip_are_not_the_clips_fault(tmp_path):
    assert worked(tmp_path, 3, 40, 2, 90, 7, 0).status == "done"


def test_deaths_at_one_frame_put_the_clip_aside(tmp_path):
    state = worked(tmp_path, 3, 40, 41, 44, 0)
    assert (state.status, len(state.attempts)) == ("failed", 4)


def test_workers_that_die_before_they_begin_are_not_the_clips_fault(tmp_path):
    assert worked(tmp_path, *[None] * 9, 3, *[None] * 5, 0).status == "done"


def test_workers_that_never_begin_end_the_run(tmp_path):
    with pytest.raises(ApeStreamError, match="10 workers died before they began: killed"):
        worked(tmp_path, *[None] * 11)


def test_frames_of_all_clips_are_not_known_before_those_of_each(tmp_path):
    states = [ClipState(Clip(name, name, 1, "digest"), expected=4) for name in "ab"]
    schedule = schedule_of(states, Deaths(OutFolder(tmp_path)))
    states[0].frames = 6  # more than its container says
    assert schedule.progress().expected == 10
    states[1].expected = None
    assert schedule.progress().expected is None
