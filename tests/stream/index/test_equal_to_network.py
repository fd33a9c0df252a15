"""What an index of the real network answers equals what the network finds, `==` on everything."""

import pytest
from made_index import same_instances

from ape_model.perceiver import ApePerceiver
from ape_model.world import World
from ape_stream.index.asking import open_index
from ape_stream.indexing.base import open_base
from ape_stream.indexing.keeping import KEEP_ALL, Keep, Keeper
from ape_stream.indexing.shelf import write_database
from ape_stream.indexing.writing import VideoWriter
from ape_stream.types import Frame, Instances, Prompt, PromptKind, PromptSet

pytest.importorskip("pyarrow")
WORLD = World()
SIZE = (144, 256)
ABSENT = ("vehicle", "fire engine", "submarine", "zebra crossing", "broccoli")


@pytest.fixture(scope="module")
def perceiver(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield ApePerceiver(device="cpu")


@pytest.mark.parametrize("keep", [KEEP_ALL, Keep()])
def test_all_names_at_several_thresholds(perceiver, tmp_path, keep):
    frames = [Frame(WORLD.scene(seed, SIZE).image, k, k / 2) for k, seed in enumerate((5, 17))]
    words = tuple(dict.fromkeys([*(prompt.text for prompt in WORLD.words.prompts), *ABSENT]))
    base = open_base(tmp_path, perceiver.facts, keep)
    keeper = Keeper(base.head, base.reference, keep)
    writer = VideoWriter(tmp_path, "drawn", base.manifest.identity)
    perceiver.prepare(PromptSet.of("dog"))
    for frame in frames:
        ((_, maps),) = perceiver.perceive_with_maps([frame], frozenset({"queries"}))
        writer.write(keeper.frame(frame, maps.queries))
    write_database(tmp_path, [writer.finish(None, None, None)])
    index, compared = open_index(tmp_path), 0
    for threshold in (0.3, 0.5, 0.7) if keep is KEEP_ALL else (0.5,):
        prompts = PromptSet(
            tuple(Prompt(w, kind=PromptKind.VOCABULARY, threshold=threshold) for w in words)
        )
        answer = index.ask(prompts)
        found = {frame.index: frame.instances() for frame in answer.frames}
        unsure = {one.index for one in answer.recheck}
        assert answer.exact or keep is not KEEP_ALL
        perceiver.prepare(prompts)
        for frame in frames:
            (live,) = perceiver.perceive([frame])
            if frame.index not in unsure:
                assert same_instances(found.get(frame.index, Instances.empty(SIZE)), live)
                compared += len(live)
    assert compared > 10
