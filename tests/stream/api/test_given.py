"""What `open` takes: images in memory, one output, ready trackers; and what it refuses."""

import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import ape_stream
from ape_stream.api import load
from ape_stream.errors import UsageError
from ape_stream.sources.memory import MemorySource
from ape_stream.testing import CollectSink, ListSource, OraclePerceiver, frames
from ape_stream.trackers.iou import IouTracker
from ape_stream.types import Frame


def grey(value=90):
    return np.full((24, 32, 3), value, np.uint8)


def streams(source, **options):
    run = ape_stream.open(source, "cup", model=OraclePerceiver(), **options)
    return [(result.frame.stream, result.frame.index) for result in run]


@pytest.mark.parametrize(
    "source",
    [
        [grey(), grey(), grey()],
        (Image.new("RGB", (32, 24)), grey(), grey()),
        (grey(value) for value in range(3)),
        list(frames(3)),
        iter(frames(3)),
        np.stack([grey()] * 3),
        torch.from_numpy(np.stack([grey()] * 3)),
        [torch.from_numpy(grey())] * 3,
    ],
    ids=["arrays", "mixed", "generator", "frames", "of frames", "one array", "tensor", "tensors"],
)
def test_images_in_memory_are_one_stream(source):
    assert streams(source) == [("images", 0), ("images", 1), ("images", 2)]


@pytest.mark.parametrize("source", [grey(), Image.new("RGB", (32, 24)), torch.from_numpy(grey())])
def test_one_image_is_a_stream_of_one(source):
    assert streams(source) == [("images", 0)]


def test_a_list_of_other_things_is_a_stream_for_each():
    given = [ListSource(list(frames(1, stream="a")), name="a"), (g for g in [grey()]), [grey()]]
    assert sorted(streams(given)) == [("a", 0), ("images", 0), ("images-2", 0)]


def test_one_output_needs_no_list(tmp_path):
    path = tmp_path / "out.jsonl"
    assert len(streams([grey()], outputs=str(path))) == 1
    assert path.exists()
    sink = CollectSink()
    streams([grey()], outputs=sink)
    assert len(sink.results) == 1


@pytest.mark.parametrize("tracker", [IouTracker, lambda: IouTracker(min_hits=1), IouTracker()])
def test_trackers_may_be_classes_functions_and_ready(tracker):
    run = ape_stream.open([grey()] * 4, "cup", model=OraclePerceiver(), tracker=tracker)
    assert [result.instances.track_ids.tolist() for result in run][-1] == [1]


@pytest.mark.parametrize("tracker", [None, "none"])
def test_no_tracker_gives_no_track_ids(tracker):
    run = ape_stream.open(grey(), "cup", model=OraclePerceiver(), tracker=tracker)
    assert [result.instances.track_ids for result in run] == [None]


@pytest.mark.parametrize("times", [(0, 1, 2, 3), (0, 1, 0, 1)], ids=["steady", "starts again"])
def test_a_ready_tracker_serves_every_stream_and_clock(times):
    tracker = IouTracker()
    frames = [Frame(grey(), k, time_s / 10) for k, time_s in enumerate(times)]
    sources = [MemorySource(frames, name=name) for name in ("a", "b")]
    run = ape_stream.open(sources, "cup", model=OraclePerceiver(), tracker=tracker)
    ids = [(r.frame.stream, *r.instances.track_ids.tolist()) for r in run]
    # Confirmed in the second frame, and under a new id where the clock began again.
    again = 1 if times[2] else 2
    expected = [0, 1, again * (times[2] > 0), again]
    assert sorted(ids) == sorted((name, k) for name in "ab" for k in expected)


def test_a_tracker_that_cannot_be_copied_says_what_to_give():
    class Locked(IouTracker):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()

    sources = [MemorySource([grey()], name=name) for name in ("a", "b")]
    with pytest.raises(UsageError, match="give its class"):
        ape_stream.open(sources, "cup", model=OraclePerceiver(), tracker=Locked())


class FrameTracker:
    def update(self, found, time_s, frame):
        """Takes one argument more than it is given."""


class NoFrames:
    name, live = "x", False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Nothing."""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": NoFrames()}, r"NoFrames cannot be a source: it has no __iter__\(\)"),
        ({"source": NoFrames}, r"a source is an object, not a class: give NoFrames\(...\)"),
        ({"source": object()}, "object cannot be a source: it has no __enter__.*name, live"),
        ({"model": object()}, r"object cannot be a model: it has no prepare\(\), perceive\(\)"),
        ({"model": OraclePerceiver}, r"not a class: give OraclePerceiver\(...\)"),
        ({"outputs": [NoFrames()]}, r"NoFrames cannot be an output: it has no write\(\)"),
        ({"outputs": CollectSink}, "not a class"),
        ({"outputs": io.StringIO()}, "an open file cannot be an output: give its path"),
        ({"tracker": object()}, r"object cannot be a tracker: it has no update\(\)"),
        ({"tracker": object}, r"object cannot be a tracker"),
        ({"tracker": FrameTracker()}, r"update\(found, time_s\): missing .* argument: 'frame'"),
        ({"tracker": FrameTracker}, r"update\(found, time_s\): missing .* argument: 'frame'"),
        ({"tracker": lambda size: size}, "without arguments.*'size'"),
        ({"model": FrameTracker()}, r"it has no prepare\(\), perceive\(\); give a name, a folder"),
        ({"source": None}, "NoneType cannot be a source.*give a path, URL or device number, an"),
        (
            {"source": np.zeros((3, 24, 32), np.uint8)},
            r"got \(3, 24, 32\) uint8: put channels last",
        ),
        ({"source": np.zeros((2, 24, 32, 3))}, "multiply values of 0..1 by 255"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_what_is_missing(change, says):
    given = {"source": grey(), "prompts": "cup", "model": OraclePerceiver(), **change}
    with pytest.raises(UsageError, match=says):
        ape_stream.open(given.pop("source"), given.pop("prompts"), **given)


def test_single_images_refuse_what_is_no_model():
    with pytest.raises(UsageError, match="prepare"):
        load(object())
