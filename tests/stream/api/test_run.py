"""`ape_stream.open`: a run in one line, streaming, closed on every way out."""

import gc
import weakref

import numpy as np
import pytest

import ape_stream
from ape_stream.errors import ConfigError, PluginError, PromptError, UsageError
from ape_stream.testing import CollectSink, ListSource, OraclePerceiver, frames


def source(n=5, name="cam"):
    return ListSource(list(frames(n, stream=name)), name=name)


def test_a_plain_loop():
    found = [
        r.detections for r in ape_stream.open(source(), ["cup", "plate"], model=OraclePerceiver())
    ]
    assert len(found) == 5
    assert found[0].data["class_name"].tolist() == ["cup", "plate"]
    assert np.asarray(found[0].mask).shape == (2, 24, 32)
    assert found[-1].tracker_id.tolist() == [1, 2]


def test_with_and_a_list_of_sources_and_ready_outputs():
    sink = CollectSink()
    sources = [source(3, "a"), source(3, "b")]
    run = ape_stream.open(sources, "cup", model=OraclePerceiver(), outputs=[sink], tracker=None)
    with run:
        streams = sorted(result.frame.stream for result in run)
    assert streams == ["a"] * 3 + ["b"] * 3
    assert len(sink.results) == 6
    assert all(r.instances.track_ids is None for r in sink.results)


def test_a_tracker_with_options():
    config = ape_stream.PluginConfig("iou", {"min_hits": 1})
    run = ape_stream.open(source(2), "cup", model=OraclePerceiver(), tracker=config)
    assert [r.instances.track_ids.tolist() for r in run] == [[1], [1]]


def test_nothing_is_kept():
    alive = []
    run = ape_stream.open(source(40), "cup", model=OraclePerceiver(), tracker=None)
    for result in run:
        alive.append(weakref.ref(result.instances.scores))
    del result
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 0


def test_every_stream_has_its_own_tracker():
    sources = [source(4, "a"), source(4, "b")]
    last = {r.frame.stream: r for r in ape_stream.open(sources, "cup", model=OraclePerceiver())}
    assert last["a"].instances.track_ids.tolist() == last["b"].instances.track_ids.tolist() == [1]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"prompts": []}, PromptError, "no prompt given"),
        ({"prompts": "  ,"}, PromptError, "no prompt given"),
        ({"prompts": ["   "]}, PromptError, "a prompt is empty"),
        ({"source": "gone.mp4"}, UsageError, "no such source: 'gone.mp4'"),
        ({"source": []}, ConfigError, "no source given"),
        ({"tracker": "psychic"}, PluginError, "no tracker is called 'psychic'"),
        ({"tracker": ape_stream.PluginConfig("iou", {"x": 1})}, ConfigError, "unknown option 'x'"),
        ({"outputs": ["out.xyz"]}, PluginError, "no output is called 'xyz'"),
        ({"threshold": 3.0}, PromptError, "threshold is 3.0"),
        ({"policy": "some"}, ConfigError, "policy 'some'"),
        ({"maps": "heat"}, ConfigError, "there is no map 'heat'"),
        (
            {"outputs": [ape_stream.OutputConfig("a.json", "gate")]},
            ConfigError,
            "'a.json' is of stream 'gate', and no source has that name; there are: cam",
        ),
        ({"outputs": ["results"]}, PluginError, "a folder needs a slash: results/"),
        ({"device": "cuda"}, ConfigError, "a ready perceiver takes no options, got device"),
    ],
)
def test_what_cannot_be_used_is_an_error_at_once(change, error, says):
    given = {"source": source(), "prompts": "cup", "model": OraclePerceiver(), **change}
    with pytest.raises(error) as caught:
        ape_stream.open(given.pop("source"), given.pop("prompts"), **given)
    assert says in str(caught.value)


def test_all_is_what_is_public():
    assert [getattr(ape_stream, name).__name__ for name in ape_stream.__all__] == ape_stream.__all__
    assert set(ape_stream.__all__) <= set(dir(ape_stream))
    assert ape_stream.draw.__name__ == "ape_stream.draw"  # a module that nobody imported yet
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        ape_stream.nothing  # noqa: B018
