"""What a worker does with a task, without a process around it."""

import errno
import subprocess
import sys

import cv2
import numpy as np
import pytest

from ape_stream.batch.clips import Clip
from ape_stream.batch.job import Setup, Task
from ape_stream.batch.selection import Selection
from ape_stream.batch.worker import Worker


class SizeJob:
    """Describes a frame by its size, if there is space."""

    batch = 2
    refusal = None

    def load(self):
        pass

    def describe(self, frames):
        if self.refusal is not None:
            raise OSError(self.refusal, "refused")
        return [str(frame.size).encode() for frame in frames]


def size_job():
    return SizeJob()


@pytest.fixture
def run(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    address = f"{__name__}:size_job"
    out = str(tmp_path / "out")
    worker = Worker(Setup(address, {}, out, str(clips), Selection(), {}, 2))

    def run(name, content):
        (clips / name).write_bytes(content)
        events = []
        clip = Clip(name.partition(".")[0], name, len(content), "digest")
        worker.run(Task(0, "find", clip), lambda kind, *_, **__: events.append(kind))
        return events

    return run


def png():
    _, data = cv2.imencode(".png", np.zeros((4, 6, 3), np.uint8))
    return data.tobytes()


def test_a_clip_that_cannot_be_read_loads_no_model(run):
    assert run("empty.png", b"") == ["started", "failed"]
    assert run("junk.mp4", b"junk") == ["started", "failed"]


def test_a_name_that_no_record_can_hold_fails_its_clip_alone(run):
    assert run("caf\udce9.png", png()) == ["started", "failed"]


def test_the_model_is_loaded_with_the_first_clip_that_can_be_read(run):
    assert run("a.png", png())[:3] == ["started", "loading", "loaded"]
    assert run("b.png", png()) == ["started", "open", "frames", "shard", "done"]


@pytest.mark.parametrize(
    ("number", "last"), [(errno.ENOSPC, "fatal"), (errno.EROFS, "fatal"), (errno.EIO, "failed")]
)
def test_a_full_disk_is_no_fault_of_the_clip(run, monkeypatch, number, last):
    monkeypatch.setattr(SizeJob, "refusal", number)
    assert run("a.png", png())[-1] == last


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's allocator")
def test_images_that_were_freed_go_back_to_the_system():
    code = """
import ctypes
from ape_stream.batch.memory import limit_fragmentation
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
limit_fragmentation()
libc.free(libc.malloc(6 << 20))  # after which glibc would take such blocks from the heap
block = libc.malloc(6 << 20)
with open("/proc/self/maps") as maps:
    heaps = [line for line in maps if line.endswith("[heap]\\n")]
start, end = (int(edge, 16) for edge in heaps[0].split()[0].split("-"))
print(start <= block < end)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
