"""Overlay video, contact sheet, window."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from results import made

from ape_stream.draw import draw
from ape_stream.errors import SinkError, TruncatedError
from ape_stream.protocols import Sink
from ape_stream.sinks.sheet import GAP, SheetSink
from ape_stream.sinks.video import VideoSink
from ape_stream.sinks.window import WindowSink
from ape_stream.sources.video import VideoSource


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


def test_the_picture_is_the_overlay_in_its_colours(tmp_path):
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


def test_several_streams_need_several_files(tmp_path):
    results = [made(0, stream="a"), made(0, stream="../b"), made(1, stream="a")]
    write(VideoSink(str(tmp_path / "{stream}.mp4")), results)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
    assert len(read(tmp_path / "a.mp4")) == 2
    with pytest.raises(SinkError, match=r"\{stream\}"):
        write(VideoSink(str(tmp_path / "one.mp4")), results)
    assert len(read(tmp_path / "one.mp4")) == 1


def test_a_time_that_repeats_gets_the_next_tick(tmp_path):
    write(VideoSink(str(tmp_path / "o.mp4")), [made(k, time_s=1.0) for k in range(3)])
    assert len(read(tmp_path / "o.mp4")) == 3


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
def test_a_killed_run_leaves_a_readable_video(tmp_path, name):
    with start_writer(tmp_path / name) as writer:
        while int(writer.stdout.readline()) < 150:
            pass
        os.kill(writer.pid, signal.SIGKILL)
    frames = read(tmp_path / name)
    assert len(frames) >= 90  # the encoder's own delay and the last fragment may be missing
    assert frames[-1].pts > frames[0].pts


def test_a_full_disk_is_one_line_and_leaves_what_was_written(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))"
    with start_writer(tmp_path / "full.mp4", limit) as writer:
        said = writer.communicate(timeout=60)[0].strip().splitlines()
    assert said[-1].startswith("refused: cannot write")
    assert writer.returncode == 0
    frames = []
    with VideoSource(str(tmp_path / "full.mp4")) as source, suppress(TruncatedError):
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


def test_a_short_run_and_pictures_of_any_shape_make_a_sheet(tmp_path):
    shapes = [(1, 3000), (3000, 1), (90, 120)]
    results = [made(k, size=size, found=1) for k, size in enumerate(shapes)]
    write(SheetSink(str(tmp_path / "s.png"), width=100), results)
    sheet = cv2.imread(str(tmp_path / "s.png"))
    assert sheet.shape == (100 + 2 * GAP, 4 * (100 + GAP) + GAP, 3)


# ----------------------------------------------------------------------------------------- window


def test_a_window_without_a_display_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SinkError, match="no display"), WindowSink("window"):
        pass


def test_a_window_shows_the_overlay_of_every_stream(monkeypatch):
    shown = {}
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "imshow", shown.setdefault)
    monkeypatch.setattr(cv2, "waitKey", lambda _delay: time.sleep(0))
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: shown.setdefault("closed", None))
    results = [made(0, stream="a"), made(0, stream="b")]
    write(WindowSink("live"), results)
    assert list(shown) == ["live a", "live b", "closed"]
    np.testing.assert_array_equal(shown["live b"], draw(results[1]))
