"""The window, with a stand-in for OpenCV's functions that need a display."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from results import made

import ape_stream
from ape_stream.draw import draw
from ape_stream.errors import SinkError
from ape_stream.sinks import window
from ape_stream.sinks.screen import screen_size
from ape_stream.sinks.window import LARGEST, WindowSink
from ape_stream.testing import ListSource, OraclePerceiver, frames


class Screen:
    """What was shown; keys are pressed as they are asked for."""

    def __init__(self):
        self.shown, self.sizes, self.titles, self.keys, self.calls = {}, {}, {}, [], []
        self.visible = 1.0

    def is_visible(self):
        if self.visible is None:  # as Qt does once the last window is gone
            raise cv2.error("NULL guiReceiver (please create a window)")
        return self.visible

    def wait(self, delay):
        self.calls.append(delay)
        return self.keys.pop(0) if self.keys else -1


@pytest.fixture
def screen(monkeypatch):
    screen = Screen()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda name, _flags: screen.sizes.setdefault(name))
    monkeypatch.setattr(
        cv2, "resizeWindow", lambda name, *size: screen.sizes.__setitem__(name, size)
    )
    monkeypatch.setattr(cv2, "imshow", screen.shown.__setitem__)
    monkeypatch.setattr(cv2, "setWindowTitle", screen.titles.__setitem__)
    monkeypatch.setattr(cv2, "waitKey", screen.wait)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda _name, _what: screen.is_visible())
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: screen.shown.setdefault("closed", None))
    return screen


def test_without_a_display_it_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SinkError, match="no display"), WindowSink("window"):
        pass


def test_the_overlay_of_every_stream_is_shown(screen):
    results = [made(0, stream="a"), made(0, stream="b")]
    with WindowSink("live") as sink:
        for result in results:
            sink.write(result)
    assert list(screen.shown) == ["live a", "live b", "closed"]
    np.testing.assert_array_equal(screen.shown["live b"], draw(results[1]))


@pytest.mark.parametrize("size", [(2160, 3840), (3840, 2160), (90, 120), (1, 5000)])
@pytest.mark.parametrize("pixels", [(800, 600), (480, 800), (3840, 2160), None])
def test_it_fits_the_screen_and_keeps_its_shape(screen, monkeypatch, size, pixels):
    monkeypatch.setattr(window, "screen_size", lambda: pixels)
    with WindowSink("w") as sink:
        sink.write(made(size=size, found=0))
    width, height = screen.sizes["w cam"]
    assert width <= min(LARGEST[0], 0.95 * (pixels or (9999, 9999))[0])
    assert height <= min(LARGEST[1], 0.9 * (pixels or (9999, 9999))[1])
    assert abs(width / height - size[1] / size[0]) < 0.01 * size[1] / size[0] or height == 1


@pytest.mark.parametrize("key", [ord("q"), 27, 0x100000 | ord("q")])
@pytest.mark.parametrize("live", [True, False])
def test_a_key_ends_the_run(screen, key, live):
    screen.keys = [-1, -1, key]
    source = ListSource(frames(10**9), live=live, period_s=0.001)
    run = ape_stream.open(source, "cup", model=OraclePerceiver(), outputs=["window"])
    assert len(list(run)) <= 4
    assert run.outcome == "stopped"
    assert len(screen.calls) == 3


@pytest.mark.parametrize("closed", [0.0, -1.0, None])
def test_closing_the_window_ends_the_run(screen, closed):
    run = ape_stream.open(
        ListSource(frames(10**9), live=True, period_s=0.001),
        "cup",
        model=OraclePerceiver(),
        outputs=["window"],
    )
    for result in run:
        if result.frame.index >= 3:
            screen.visible = closed
        assert result.frame.index < 10_000
    assert run.outcome == "stopped"


def test_space_pauses_and_goes_on(screen):
    screen.keys = [ord(" "), -1, -1, ord(" "), -1]
    with WindowSink("w") as sink:
        sink.write(made(0))
        assert len(screen.calls) == 4
        sink.write(made(1))
    assert len(screen.calls) == 5


@pytest.mark.parametrize("how", ["key", "closed"])
def test_a_paused_run_can_be_ended(screen, how):
    stopped = []
    screen.keys = [ord(" "), -1, *([ord("q")] if how == "key" else [])]
    sink = WindowSink("w")
    sink.on_end(lambda: stopped.append(1))
    if how == "closed":
        screen.visible = 0.0
    with sink:
        sink.write(made(0))
        sink.write(made(1))
    assert stopped == [1]


def test_s_saves_what_is_shown(screen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    screen.keys = [-1, ord("s")]
    with WindowSink("w") as sink:
        for k in range(2):
            sink.write(made(k, stream="../cam 1"))
    saved = cv2.imread(str(tmp_path / "cam-1-000001.png"))
    np.testing.assert_array_equal(saved, draw(made(1, stream="../cam 1")))
    assert screen.titles == {"w ../cam 1": "saved cam-1-000001.png"}


def test_qt_is_kept_quiet_about_fonts(screen, monkeypatch):
    monkeypatch.setenv("QT_LOGGING_RULES", "mine=true")
    monkeypatch.setenv("QT_QPA_FONTDIR", "/not/there")
    with WindowSink("w") as sink:
        sink.write(made(0))
    assert os.environ["QT_LOGGING_RULES"] == "mine=true;default.warning=false"
    assert screen.shown


def test_the_size_of_the_screen_is_that_of_the_display(monkeypatch):
    xvfb = shutil.which("Xvfb")
    if xvfb is None or ctypes.util.find_library("X11") is None:
        pytest.skip("needs Xvfb and libX11")
    command = [xvfb, "-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            monkeypatch.setenv("DISPLAY", f":{server.stdout.readline().decode().strip()}")
            assert screen_size() == (800, 600)
        finally:
            server.terminate()
    assert screen_size() is None  # it is gone


@pytest.mark.parametrize("error", [OSError("no such library"), AttributeError("XOpenDisplay")])
def test_without_the_library_of_the_display_no_size_is_known(monkeypatch, error):
    def missing(_):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert screen_size() is None
