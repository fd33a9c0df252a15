"""Overlay video, contact sheet, window."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from results import made

from ape_stream.draw import draw
from ape_stream.errors import ConfigError, SinkError, TruncatedError
from ape_stream.protocols import Sink
from ape_stream.sinks.sheet import GAP, SheetSink
from ape_stream.sinks.video import VideoSink
from ape_stream.sources.video import VideoSource
from ape_stream.types import Frame


def write(sink, results):
    with sink:
        for result in results:
            sink.write(result)


def read(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("name", ["o.mp4", "deep/er/o.mkv"])
def test_every_frame_is_written_with_its_time(tmp_path, name):
    times = np.cumsum([0.5, 0.04, 0.04, 0.3, 0.01, 1.2, 0.04]).tolist()
    sink = VideoSink(str(tmp_path / name))
    assert isinstance(sink, Sink)
    write(sink, [made(k, time_s=t) for k, t in enumerate(times)])
    with VideoSource(str(tmp_path / name)) as source:
        written = [frame.time_s for frame in source]
    start = times[0] if name.endswith("mp4") else 0  # an mp4 begins at 0
    np.testing.assert_allclose(np.add(written, start), times, atol=1.1e-3)


def test_the_image_is_the_overlay_in_its_colours(tmp_path):
    result = made(found=1, size=(480, 640))
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, :320], image[:, 320:] = (30, 60, 200), (200, 120, 20)
    result = type(result)(type(result.frame)(image, 0, 0.0), result.instances, result.prompts)
    write(VideoSink(str(tmp_path / "o.mp4"), crf=1), [result])
    (frame,) = read(tmp_path / "o.mp4")
    assert frame.format.name == "yuv420p"
    assert (frame.colorspace, frame.color_range) in {(5, 1), (6, 1)}  # BT.601, limited
    error = np.abs(frame.to_ndarray(format="bgr24").astype(int) - draw(result))
    assert error[100:, :300].mean() < 3
    assert error[100:, 340:].mean() < 3


@pytest.mark.parametrize("size", [(91, 121), (1, 1), (2, 3), (1, 2001)])
def test_odd_sizes_are_padded_by_one(tmp_path, size):
    write(VideoSink(str(tmp_path / "o.mp4")), [made(k, size=size, found=1) for k in range(3)])
    frames = read(tmp_path / "o.mp4")
    assert len(frames) == 3
    assert (frames[0].height, frames[0].width) == tuple(side + side % 2 for side in size)


def test_a_stream_that_changes_its_size_keeps_the_first(tmp_path):
    write(VideoSink(str(tmp_path / "o.mp4")), [made(0), made(1, size=(200, 90)), made(2)])
    assert {(f.height, f.width) for f in read(tmp_path / "o.mp4")} == {(90, 120)}


def test_a_video_holds_one_stream(tmp_path):
    sink = VideoSink(str(tmp_path / "one.mp4"))
    sink.claim(["a"])
    with pytest.raises(ConfigError, match=r"takes one stream.*\{stream\}\.mp4"):
        sink.claim(["a", "b"])
    with pytest.raises(SinkError, match="holds a and cannot take b"):
        write(sink, [made(0, stream="a"), made(0, stream="b")])
    assert len(read(tmp_path / "one.mp4.part")) == 1


STRANGE = {
    "repeats": ([1.0, 1.0, 1.0], [0, 0, 0]),
    "negative": ([-5.0, -4.9, -4.8], [0, 0.1, 0.2]),
    "turns back": ([7.0, 7.1, 0.0, 0.1], [0, 0.1, 0.2, 0.3]),
    "huge": ([0.0, 0.1, 1e300, 1e300], [0, 0.1, 0.2, 0.2]),
    "starts huge": ([1e300, 0.1, 0.2], [0, 1 / 30, 2 / 15]),
    "no number": ([0.0, 0.1, math.nan, 0.3, 0.4], [0, 0.1, 0.2, 0.3, 0.4]),
    "unix": ([1.7e9, 1.7e9 + 0.5, 1.7e9 + 2], [0, 0.5, 2]),
}


@pytest.mark.parametrize("name", ["o.mp4", "o.mkv"])
@pytest.mark.parametrize(("times", "wanted"), STRANGE.values(), ids=STRANGE)
def test_strange_times_make_a_video_that_plays(tmp_path, name, times, wanted):
    write(VideoSink(str(tmp_path / name)), [made(k, time_s=t) for k, t in enumerate(times)])
    frames = read(tmp_path / name)
    seen = [frame.time for frame in frames]
    start = 0 if name == "o.mp4" or not 0 <= times[0] < 1e10 else times[0]
    np.testing.assert_allclose(np.subtract(seen, start), wanted, atol=2.1e-3)


def test_too_large_an_image_is_one_line_that_says_what_to_do(tmp_path):
    sink = VideoSink(str(tmp_path / "o.mp4"))
    with pytest.raises(SinkError, match=r"40000x2 are too large for H.264.*write \.json") as error:
        write(sink, [made(size=(2, 40_000), found=0)])
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_paths_are_refused_on_entering(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    for path in ("folder.mp4", "file/o.mp4"):
        for kind in (VideoSink, SheetSink):
            with (
                pytest.raises(SinkError, match="cannot write") as error,
                kind(str(tmp_path / path)),
            ):
                pass
            assert "\n" not in str(error.value)


WRITER = """
import sys
sys.path.insert(0, {here!r})
import numpy as np
from results import made
from ape_stream.errors import SinkError
from ape_stream.sinks.video import VideoSink
from ape_stream.types import Frame
{limit}
noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
nothing = made(0, found=0)
try:
    with VideoSink({path!r}, preset="ultrafast") as sink:
        for k in range(5000):
            frame = Frame(np.roll(noise, k, axis=1), k, k / 25)
            sink.write(type(nothing)(frame, nothing.instances, nothing.prompts))
            if k % 50 == 0:
                print(k, flush=True)
except SinkError as error:
    print("refused:", error, flush=True)
"""


def start_writer(path, limit=""):
    code = textwrap.dedent(WRITER).format(
        here=str(Path(__file__).parents[1]), path=str(path), limit=limit
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env
    )


@pytest.mark.parametrize("name", ["killed.mp4", "killed.mkv"])
@pytest.mark.parametrize(("count", "fps"), [(76, 30), (4, 1)])
def test_a_kill_costs_less_than_a_second_of_the_stream(tmp_path, name, count, fps):
    """However slow a run is: what counts is how many frames it has written."""
    code = (
        f"import os, sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from results import made\n"
        "from ape_stream.sinks.video import VideoSink\n"
        f"with VideoSink({str(tmp_path / name)!r}) as sink:\n"
        f"    for k in range({count}): sink.write(made(k, time_s=k / {fps}))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    frames = read(tmp_path / f"{name}.part")
    assert frames[0].time == 0
    assert (count - len(frames)) / fps <= 1
    keys = [frame.time for frame in frames if frame.key_frame]
    assert np.diff(keys).max(initial=0) <= max(1, 1 / fps) + 0.01


@pytest.mark.parametrize("name", ["slow.mp4", "slow.mkv"])
@pytest.mark.parametrize("step_s", [0.3, 5.0])
def test_a_slow_model_leaves_frames_that_can_be_read(tmp_path, monkeypatch, name, step_s):
    """0.3 s a frame and more, 30 frames a second of stream: no fragment lasts over 1 s of work."""
    now_s = 0.0
    monkeypatch.setattr("ape_stream.sinks.video.time.monotonic", lambda: now_s)
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    nothing = made(0, found=0)
    with VideoSink(str(tmp_path / name)) as sink:
        for k in range(12):
            now_s = k * step_s
            frame = Frame(noise, k, k / 30)
            sink.write(type(nothing)(frame, nothing.instances, nothing.prompts))
            held = k + 1 - frames_in(tmp_path / f"{name}.part")
            assert held * step_s < 1 + step_s  # the last one closes the fragment before it
    assert len(read(tmp_path / name)) == 12


def test_a_reproducible_video_depends_on_its_frames_alone(tmp_path, monkeypatch):
    """Neither the time that frames took nor the number of cores changes a byte."""
    now_s = 0.0
    monkeypatch.setattr("ape_stream.sinks.video.time.monotonic", lambda: now_s)
    tall = np.random.default_rng(0).integers(0, 256, (512, 64, 3), np.uint8)  # room for slices
    nothing = made(0, found=0)
    cores = os.sched_getaffinity(0)
    try:
        for name, used, step_s in (("a.mp4", cores, 0.0), ("b.mp4", {min(cores)}, 1.7)):
            os.sched_setaffinity(0, used)
            with VideoSink(str(tmp_path / name), reproducible=True) as sink:
                for k in range(12):
                    now_s += step_s
                    frame = Frame(tall, k, k / 10)
                    sink.write(type(nothing)(frame, nothing.instances, nothing.prompts))
    finally:
        os.sched_setaffinity(0, cores)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def frames_in(path):
    try:
        return len(read(path))
    except av.FFmpegError:  # no frame yet
        return 0


def test_a_full_disk_is_one_line_and_leaves_what_was_written(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))"
    with start_writer(tmp_path / "full.mp4", limit) as writer:
        lines = writer.communicate(timeout=60)[0].strip().splitlines()
    assert lines[-1].startswith("refused: cannot write")
    assert writer.returncode == 0
    frames = []
    with VideoSource(str(tmp_path / "full.mp4.part")) as source, suppress(TruncatedError):
        frames.extend(source)  # the last fragment may be cut
    assert len(frames) >= 30


# --------------------------------------------------------------------------------- contact sheet


def test_the_sheet_shows_frames_from_all_over_the_run(tmp_path):
    write(SheetSink(str(tmp_path / "s.png"), columns=3, rows=2, width=120), map(made, range(100)))
    sheet = cv2.imread(str(tmp_path / "s.png"))
    assert sheet.shape == (2 * (90 + GAP) + GAP, 3 * (120 + GAP) + GAP, 3)
    corners = [
        int(sheet[(row + 1) * (90 + GAP) - 2, (column + 1) * (120 + GAP) - 2, 0]) - 60
        for row in range(2)
        for column in range(3)
    ]
    assert corners == sorted(corners)
    assert corners[0] < 10
    assert corners[-1] > 80
    assert np.diff(corners).max() <= 32


def test_a_short_run_and_images_of_any_shape_make_a_sheet(tmp_path):
    shapes = [(1, 3000), (3000, 1), (90, 120)]
    results = [made(k, size=size, found=1) for k, size in enumerate(shapes)]
    write(SheetSink(str(tmp_path / "s.png"), width=100), results)
    sheet = cv2.imread(str(tmp_path / "s.png"))
    assert sheet.shape == (100 + 2 * GAP, 3 * (100 + GAP) + GAP, 3)


def test_a_sheet_of_portrait_images_has_narrow_cells(tmp_path):
    results = [made(k, size=(120, 60)) for k in range(5)]
    write(SheetSink(str(tmp_path / "s.png"), width=60), results)
    sheet = cv2.imread(str(tmp_path / "s.png"))
    assert sheet.shape == (2 * (60 + GAP) + GAP, 4 * (30 + GAP) + GAP, 3)
