"""`synthetic://` delivers a world's video, by the clock where asked."""

import threading
import time

import numpy as np
import pytest

from ape_model.world import World
from ape_stream import plugins
from ape_stream.errors import PluginError, UsageError
from ape_stream.protocols import Source
from ape_stream.sources.synthetic import SyntheticSource


@pytest.fixture(autouse=True)
def _worlds(monkeypatch):
    def load(group, name):
        if (group, name) != ("worlds", "emoji"):
            raise PluginError(f"no world is called {name!r}")
        return World

    monkeypatch.setattr(plugins, "load", load)


def test_frames_are_the_worlds_own_with_times():
    source = SyntheticSource("synthetic://7?size=96x64&fps=10&frames=4", name="drawn")
    assert isinstance(source, Source)
    assert source.frame_count == 4
    assert not source.live
    with source:
        frames = list(source)
    video = World().video(7, (64, 96), fps=10)
    assert [f.index for f in frames] == [0, 1, 2, 3]
    assert [f.time_s for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert {f.stream for f in frames} == {"drawn"}
    for frame in frames:
        np.testing.assert_array_equal(frame.image, video.scene(frame.index).image)


def test_it_can_be_read_twice():
    with SyntheticSource("synthetic://7?size=96x64&frames=2", name="a") as source:
        assert len(list(source)) == 2
    with source:
        assert len(list(source)) == 2


def test_live_frames_come_at_their_time():
    with SyntheticSource("synthetic://1?size=96x64&fps=20&frames=5&live=1", name="a") as source:
        assert source.live
        start = time.monotonic()
        assert len(list(source)) == 5
    assert time.monotonic() - start >= 0.19


def test_endless_has_no_count_and_leaving_wakes_a_waiting_reader():
    source = SyntheticSource("synthetic://1?size=96x64&fps=0.01&frames=0&live=1", name="a")
    assert source.frame_count is None
    got = []
    with source:
        reader = threading.Thread(target=lambda: got.extend(source))
        reader.start()
        time.sleep(0.2)
    reader.join(timeout=2)
    assert not reader.is_alive()
    assert len(got) == 1


def test_cast_names_the_things():
    one = SyntheticSource("synthetic://1?size=96x64&frames=1&cast=red%20apple,dog face", name="a")
    with one:
        assert len(list(one)) == 1


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("synthetic://cat", "synthetic://SEED"),
        ("synthetic://1/2", "synthetic://SEED"),
        ("synthetic://-1", "synthetic://SEED"),
        ("synthetic://1?colour=red", "colour"),
        ("synthetic://1?size=0x9", "size"),
        ("synthetic://1?size=99999x9", "size"),
        ("synthetic://1?size=320", "size"),
        ("synthetic://1?fps=0", "fps"),
        ("synthetic://1?fps=nan", "fps"),
        ("synthetic://1?frames=1.5", "frames"),
        ("synthetic://1?frames=-1", "frames"),
        ("synthetic://1?live=yes", "live"),
        ("synthetic://1?cast=gryphon", "gryphon"),
        ("synthetic://1?world=moon", "moon"),
    ],
)
def test_a_bad_address_is_refused_with_a_reason(spec, says):
    with pytest.raises(UsageError, match=says):
        SyntheticSource(spec, name="a")
