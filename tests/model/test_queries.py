"""The states of queries, scored outside of the network: equal to what a live run finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ape_model.config import NANO
from ape_model.network.align import ExactAlignment, fixed_point, round_states
from ape_model.perceiver import ApePerceiver
from ape_model.world import World
from ape_stream import masks
from ape_stream.index import alignment
from ape_stream.index.cells import STEPS, clip_logits, inside_boxes
from ape_stream.types import Frame, PromptSet

WORLD = World()
SIZE = (144, 256)


def head_of(facts):
    return alignment.Head(
        **facts.alignment, basis=np.zeros((1, len(facts.alignment["weight"])), np.float32)
    )


@pytest.fixture(scope="module")
def perceiver(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield ApePerceiver(device="cpu", threshold=0.4)


def test_scores_and_masks_of_a_live_run_are_those_of_the_states(perceiver):
    words = [*WORLD.names, "vehicle", "zebra crossing"]
    perceiver.prepare(PromptSet.of([{"text": word, "kind": "vocabulary"} for word in words]))
    facts, found = perceiver.facts, 0
    vectors, biases = head_of(facts).project(facts.embed(words))
    for seed in (4, 11):
        image = WORLD.scene(seed, SIZE).image
        ((live, maps),) = perceiver.perceive_with_maps(
            [Frame(image, 0, 0.0)], frozenset({"queries"})
        )
        own = maps.queries
        scores = alignment.scores_of(head_of(facts).logits(own.states, vectors, biases))  # (Q, P)
        edges = inside_boxes(own.boxes, own.cells, own.filled, facts.mask_margin)
        steps = own.mask_logits(np.arange(len(own.boxes)))
        logits = clip_logits(steps.astype(np.float32) / STEPS, edges)
        every = [masks.from_logits(one, SIZE, own.filled) for one in logits]
        for mask, score, prompt in zip(live.masks, live.scores, live.prompt_ids, strict=True):
            if words[prompt] in facts.stuff:
                continue  # of several queries, and not cut
            (query,) = np.flatnonzero(scores[:, prompt] == score)
            assert (every[query].x, every[query].y) == (mask.x, mask.y)
            assert np.array_equal(every[query].bitmap, mask.bitmap)
            found += 1
    assert found > 5


def test_a_mask_does_not_depend_on_the_others(perceiver):
    frame, every = Frame(WORLD.scene(4, SIZE).image, 0, 0.0), []
    for words in (list(WORLD.names), "violin"):  # regions that have masks already, and none
        perceiver.prepare(PromptSet.of(words))
        ((live, maps),) = perceiver.perceive_with_maps([frame], frozenset({"queries"}))
        assert (len(live) > 0) is (words != "violin")
        every.append(maps.queries.mask_logits(np.arange(NANO.ape.queries)))
        for some in ([3], [9, 3], [63, 0, 17]):
            assert np.array_equal(maps.queries.mask_logits(np.array(some)), every[0][some])


def test_sentences_leave_the_queries_as_they_are(perceiver):
    frame, states = Frame(WORLD.scene(4, SIZE).image, 0, 0.0), []
    for prompts in ("dog", "the dog on the left of a tree"):
        perceiver.prepare(PromptSet.of(prompts))
        ((_, maps),) = perceiver.perceive_with_maps([frame], frozenset({"queries"}))
        states.append(maps.queries.states)
    assert np.array_equal(*states)


def test_where_nothing_is_looked_for_the_queries_are_the_same(perceiver):
    frame = Frame(WORLD.scene(11, SIZE).image, 0, 0.0)
    perceiver.prepare(PromptSet.of(list(WORLD.names)))
    ((_, maps),) = perceiver.perceive_with_maps([frame], frozenset({"queries"}))
    alone, numbers = perceiver.queries(frame), np.arange(NANO.ape.queries)
    assert np.array_equal(alone.states, maps.queries.states)
    assert np.array_equal(alone.boxes, maps.queries.boxes)
    assert np.array_equal(alone.mask_logits(numbers), maps.queries.mask_logits(numbers))
    assert (alone.cells, alone.filled) == (maps.queries.cells, maps.queries.filled)


@pytest.mark.parametrize("width", [16, 128, 256])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_torch_and_numpy_compute_the_same_logits(width, kind):
    torch.manual_seed(width)
    sizes = 10 ** (torch.rand(2, 20, 1) * 6 - 3)
    states = (torch.randn(2, 20, width) * sizes).to(kind)
    states[0, 0] = 0
    vectors, biases = torch.randn(7, width), torch.randn(7)
    exact = ExactAlignment(states, vectors, biases, torch.tensor(0.7))
    states[0, 1] = torch.tensor(1 - 2.0**-24)  # rounded up to one more than there is room for
    states[0, 2] *= 2.0**-120
    wide = states.float().numpy()
    assert np.array_equal(fixed_point(states, width), alignment.fixed_point(wide, width))
    rounded = alignment.state_codes(wide.reshape(-1, width)).states()
    assert np.array_equal(round_states(states), rounded.reshape(wide.shape))
    pairs = torch.cartesian_prod(torch.arange(2), torch.arange(20), torch.arange(7)).unbind(1)
    parts = [np.zeros(shape, np.float32) for shape in ((width, 3), width, 3, ())]
    head = alignment.Head(*parts, np.float32(0.7), np.zeros((1, width), np.float32))
    flat = wide.reshape(-1, width)
    wanted = head.logits(flat, vectors.numpy(), biases.numpy()).reshape(2, 20, 7)
    assert np.array_equal(exact.logits(*pairs).numpy(), wanted.ravel())
    plain = (states.float() @ vectors.T / 0.7 + biases).to(kind).float().numpy()
    assert (np.abs(plain - wanted) <= exact.error().numpy()).all()


def test_names_are_projected_as_in_numpy(tiny):
    network = tiny.network.eval()
    parts = {name: part.detach().numpy() for name, part in network.alignment.parts().items()}
    head = alignment.Head(**parts, basis=np.zeros((1, network.config.hidden), np.float32))
    texts = torch.randn(9, network.config.text_width)
    texts[0] = 0
    got = network.vocabulary(texts)
    vectors, biases = head.project(texts.numpy())
    assert np.array_equal(got.vectors[0].detach(), vectors)
    assert np.array_equal(got.biases[0].detach(), biases)
    few = network.vocabulary(texts[4:5])
    assert torch.equal(few.vectors[0, 0], got.vectors[0, 4])
