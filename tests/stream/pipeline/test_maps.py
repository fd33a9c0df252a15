"""Maps of every pixel: made where they are asked for, by the run, an output or its readers."""

import numpy as np
import pytest

from ape_stream.errors import ConfigError, UsageError
from ape_stream.pipeline import Pipeline
from ape_stream.testing import CollectSink, ListSource, OraclePerceiver, frames
from ape_stream.types import Maps, PanopticMap, PromptSet, SemanticMap

PROMPTS = PromptSet.of("sky, road")


class Painter(OraclePerceiver):
    """Gives the left half of every frame to the first prompt, and keeps what it was asked for."""

    def __init__(self):
        super().__init__()
        self.wanted = []

    def perceive(self, frames):
        self.wanted.append(frozenset())
        return super().perceive(frames)

    def perceive_with_maps(self, frames, wanted):
        found = super().perceive(frames)
        self.wanted.append(wanted)
        ids = np.zeros(frames[0].size, np.uint16)
        ids[:, : ids.shape[1] // 2] = 1
        coarse = np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32)
        maps = Maps(
            SemanticMap(ids, coarse, (1.0, 2.0)) if "semantic" in wanted else None,
            PanopticMap(ids, (), (True, True)) if "panoptic" in wanted else None,
        )
        return [(instances, maps) for instances in found]


class Needing(CollectSink):
    maps = frozenset()


def run(painter, *, sinks=(), **options):
    with Pipeline([ListSource(list(frames(2)))], painter, PROMPTS, sinks=sinks, **options) as ran:
        return list(ran)


def test_a_run_without_a_wish_makes_none_and_says_how_to_ask():
    painter = Painter()
    result = run(painter)[0]
    assert painter.wanted == [frozenset()] * 2
    for ask, name in ((result.semantic, "semantic"), (result.panoptic, "panoptic")):
        with pytest.raises(UsageError, match=rf'maps=\("{name}",\)'):
            ask()
    # The label image is then painted from the masks.
    assert set(np.unique(result.label_image())) == {0, 1, 2}


def test_a_run_makes_what_it_was_asked_for():
    painter = Painter()
    result = run(painter, maps=("semantic",))[0]
    assert painter.wanted == [{"semantic"}] * 2
    assert result.semantic() is result.label_image()
    scores = result.semantic_scores()
    assert scores.shape == (2, *result.frame.size)
    assert (scores.argmax(0) == np.where(result.semantic() == 1, 0, 1)).all()
    with pytest.raises(UsageError, match="no panoptic map"):
        result.panoptic()
    assert run(Painter(), maps=("panoptic",))[0].panoptic().ids.any()


def test_an_output_that_needs_one_brings_it():
    painter, sink = Painter(), Needing()
    sink.maps = frozenset({"panoptic"})
    run(painter, sinks=[CollectSink(), sink], maps=("semantic",))
    assert painter.wanted == [{"semantic", "panoptic"}] * 2


def test_an_output_whose_readers_come_later_gets_maps_from_then_on():
    painter, sink = Painter(), Needing()

    class Late(ListSource):
        def __iter__(self):
            one, two = frames(2)
            yield one
            while len(painter.wanted) < 1:
                pass
            sink.maps = frozenset({"semantic"})
            yield two

    with Pipeline([Late(())], painter, PROMPTS, sinks=[sink]) as ran:
        results = list(ran)
    assert painter.wanted == [frozenset(), {"semantic"}]
    assert [result.maps.semantic is None for result in results] == [True, False]


def test_a_model_without_maps_and_a_map_that_nobody_makes_are_refused():
    with pytest.raises(ConfigError, match="the model makes no semantic maps"):
        run(OraclePerceiver(), maps=("semantic",))
    with pytest.raises(ConfigError, match="no map 'depth': maps are semantic, panoptic"):
        run(Painter(), maps=("depth",))
