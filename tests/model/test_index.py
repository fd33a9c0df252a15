"""An index answers what a live run finds on the same frames, number for number."""

from __future__ import annotations

import numpy as np
import pytest

from ape_model.perceiver import ApePerceiver
from ape_model.world import World
from ape_stream import index
from ape_stream.indexing.base import open_base
from ape_stream.indexing.keeping import KEEP_ALL, Keep, Keeper
from ape_stream.indexing.shelf import write_database
from ape_stream.indexing.writing import VideoWriter
from ape_stream.types import Frame, PromptSet

WORLD = World()
SYNONYMS_AND_ABSENT = ["vehicle", "canine", "timber", "violin", "submarine"]
WORDS = [*WORLD.names, *SYNONYMS_AND_ABSENT]


def prompts(threshold):
    named = [{"text": word, "kind": "vocabulary", "threshold": threshold} for word in WORDS]
    return PromptSet.of(named)


@pytest.fixture(scope="module")
def frames():
    video = WORLD.video(7, (144, 256), fps=10.0)
    return [Frame(video.scene(k).image, k, k / 10) for k in (0, 1, 9)]


@pytest.fixture(scope="module")
def perceiver(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield ApePerceiver(device="cpu")


@pytest.fixture(scope="module")
def indexes(perceiver, frames, tmp_path_factory):
    """Everything, the default, and too little."""
    perceiver.prepare(PromptSet.of("dog"))
    found = [perceiver.perceive_with_maps([frame], frozenset({"queries"}))[0] for frame in frames]
    made = []
    for number, keep in enumerate((KEEP_ALL, Keep(), Keep(rows=8))):
        root = tmp_path_factory.mktemp(f"index{number}")
        base = open_base(root, perceiver.facts, keep)
        keeper = Keeper(base.head, base.reference, keep)
        writer = VideoWriter(root, "drawn", base.manifest.identity)
        for frame, (_, maps) in zip(frames, found, strict=True):
            writer.write(keeper.frame(frame, maps.queries))
        write_database(root, [writer.finish("drawn.mp4", (10, 1), None)])
        made.append(index.open(root))
    return made


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_answers_are_those_of_a_live_run(perceiver, frames, indexes, threshold):
    asked = prompts(threshold)
    perceiver.prepare(asked)
    wanted = dict(enumerate(perceiver.perceive([frame])[0] for frame in frames))
    assert sum(map(len, wanted.values())) > 10
    for one, opened in enumerate(indexes):
        answer = opened.ask(asked)
        uncertain = {(u.index, k) for u in answer.recheck for k in u.prompts}
        assert one > 0 or not uncertain
        got = {found.index: found for found in answer.frames}
        for frame, live in zip(frames, wanted.values(), strict=True):
            sure = [k for k in range(len(WORDS)) if (frame.index, k) not in uncertain]
            assert len(sure) > 0.8 * len(WORDS) or one == 2
            found = got[frame.index].instances() if frame.index in got else live.select([])
            pair = [each.select(np.isin(each.prompt_ids, sure)) for each in (found, live)]
            # The order of all regions depends on those of words that are not certain.
            same(*(pair if len(sure) == len(WORDS) else map(by_word, pair)))


def by_word(found):
    return found.select(np.lexsort((-found.scores, found.prompt_ids)))


def same(got, wanted):
    assert np.array_equal(got.prompt_ids, wanted.prompt_ids)
    assert np.array_equal(got.scores, wanted.scores)
    assert np.array_equal(got.boxes, wanted.boxes)
    for one, other in zip(got.masks, wanted.masks, strict=True):
        assert (one.x, one.y) == (other.x, other.y)
        assert np.array_equal(one.bitmap, other.bitmap)
