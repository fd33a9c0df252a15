"""What `open` takes: images in memory, one output, ready trackers; and what it refuses."""

import numpy as np
import pytest
from PIL import Image

import ape_stream
from ape_stream.api import load
from ape_stream.errors import ConfigError, PipelineError
from ape_stream.testing import CollectSink, ListSource, OraclePerceiver, frames
from ape_stream.trackers.iou import IouTracker


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
    ],
    ids=["arrays", "mixed", "generator", "frames", "iterator of frames", "one array of all"],
)
def test_images_in_memory_are_one_stream(source):
    if isinstance(source, np.ndarray):
        source = list(source)
    assert streams(source) == [("images", 0), ("images", 1), ("images", 2)]


@pytest.mark.parametrize("source", [grey(), Image.new("RGB", (32, 24))])
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


def test_a_ready_tracker_follows_one_stream():
    sources = [[grey()], (image for image in [grey()])]
    with pytest.raises((ConfigError, PipelineError), match="give its class"):
        streams(sources, tracker=IouTracker())


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
        ({"tracker": object()}, r"object cannot be a tracker: it has no update\(\)"),
        ({"tracker": object}, r"object cannot be a tracker"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_what_is_missing(change, says):
    given = {"source": grey(), "prompts": "cup", "model": OraclePerceiver(), **change}
    with pytest.raises(ConfigError, match=says):
        ape_stream.open(given.pop("source"), given.pop("prompts"), **given)


def test_single_images_refuse_what_is_no_model():
    with pytest.raises(ConfigError, match="prepare"):
        load(object())
