"""Semantic and panoptic maps from all queries, against plain forms."""

import numpy as np
import pytest
import torch

from ape_model.inference.argmax import argmax_upsampled
from ape_model.inference.class_maps import (
    OVERLAP,
    RULES,
    TEMPERATURE,
    AllQueries,
    paint_classes,
    paint_segments,
)
from ape_model.reference.official_paste import to_output
from ape_model.reference.panoptic import (
    Vocabulary,
    panoptic_map,
    semantic_map,
)
from ape_stream import masks

SIZE = (90, 120)
CELLS = (24, 32)


def blob(center, radius):
    """A soft disc on the cells of the mask feature: logits."""
    y, x = np.mgrid[: CELLS[0], : CELLS[1]]
    return (radius - np.hypot(y - center[0], x - center[1])) * 1.5


def example():
    """Two things and two regions of a stuff prompt (2) that overlap, a weak query, a double."""
    logits = [
        blob((8, 8), 5),
        blob((8, 9), 5),
        blob((12, 18), 6),
        blob((20, 6), 9),
        blob((20, 28), 9),
        blob((3, 28), 4),
    ]
    scores = [
        [0.9, 0.2, 0.1],
        [0.8, 0.1, 0.1],
        [0.1, 0.7, 0.2],
        [0.0, 0.1, 0.9],
        [0.1, 0.0, 0.8],
        [0.2, 0.1, 0.1],
    ]
    boxes = [[3, 3, 13, 13], [4, 3, 14, 13], [12, 6, 24, 18], [0, 11, 15, 24], [19, 11, 32, 24]]
    boxes = np.array([*boxes, [24, 0, 32, 7]]) / (CELLS[1], CELLS[0], CELLS[1], CELLS[0])
    scores = torch.tensor(scores)
    return torch.tensor(np.stack(logits), dtype=torch.float32), AllQueries(
        scores=scores,
        strength=(scores / 0.5).amax(1),
        masks=torch.tensor(np.stack(logits), dtype=torch.float32).sigmoid(),
        boxes=torch.tensor(boxes, dtype=torch.float32),
        filled=(float(CELLS[0]), float(CELLS[1])),
    )


def plainly(queries, rule):
    """Query by query and prompt by prompt, as the rules read."""
    total = np.zeros((queries.scores.shape[1], *CELLS))
    for scores, mask in zip(queries.scores.numpy(), queries.masks.numpy(), strict=True):
        weights = scores
        if rule == "paper":
            weights = np.exp(scores / TEMPERATURE) / np.exp(scores / TEMPERATURE).sum()
        for prompt, weight in enumerate(weights):
            painted = weight * mask
            if rule == "max":
                total[prompt] = np.maximum(total[prompt], painted)
            else:
                total[prompt] += painted
    return total


@pytest.mark.parametrize("rule", RULES)
def test_every_query_paints_by_the_rule(rule):
    _, queries = example()
    found = paint_classes(queries, rule, 0.0)
    np.testing.assert_allclose(found.values.numpy(), plainly(queries, rule), rtol=1e-4, atol=1e-5)
    assert (found.gates == 1).all()


def test_a_pixel_has_a_prompt_where_the_mask_of_a_sure_query_is():
    _, queries = example()
    inside = queries.masks[:5].amax(0) >= 0.5
    assert ((paint_classes(queries).gates[0] >= 1) == inside).all()
    weak = queries.masks.amax(0) >= 0.5
    assert ((paint_classes(queries, threshold=0.15).gates[0] >= 1) == weak).all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("at_once", [1, 2**26])
def test_on_a_gpu_every_pixel_has_the_same_owner(monkeypatch, shared, at_once):
    monkeypatch.setattr("ape_model.inference.argmax._VALUES_AT_ONCE", at_once)
    random = torch.Generator().manual_seed(0)
    values = torch.rand(5, 9, 16, generator=random)
    gates = 2 * torch.rand(1 if shared else 5, 9, 16, generator=random)
    given = ((71, 113), (8.3, 16.0))
    found = argmax_upsampled(values, gates, *given)
    wanted = masks.argmax_upsampled(values.numpy(), gates.numpy(), *given)
    np.testing.assert_array_equal(found.numpy(), wanted)
    assert len(np.unique(wanted)) == 6


def semantic_of(queries):
    found = paint_classes(queries, threshold=0.0)
    ids = masks.argmax_upsampled(found.values.numpy(), found.gates.numpy(), SIZE, queries.filled)
    return ids.astype(int) - 1


def test_the_official_order_of_steps_gives_nearly_every_pixel_the_same_prompt():
    logits, queries = example()
    canvas = torch.nn.functional.interpolate(logits[None], scale_factor=4.0, mode="bilinear")[0]
    official = to_output(semantic_map(queries.scores.logit(), canvas), canvas.shape[1:], SIZE)
    same = semantic_of(queries) == official.argmax(0).numpy()
    assert same.mean() > 0.985


def test_segments_are_those_of_the_official_rule():
    logits, queries = example()
    found = paint_segments(queries, 0.1)
    assert found.prompts.tolist() == [0, 2, 2, 1]  # the double and the weak one are gone
    assert found.scores.tolist() == pytest.approx([0.9, 0.9, 0.8, 0.7])
    winners = masks.argmax_upsampled(
        found.maps.values.numpy(), found.maps.gates.numpy(), SIZE, queries.filled
    )
    stuff = np.array([False, False, True])
    ours = masks.join_segments(
        winners, found.prompts.numpy(), found.scores.numpy(), found.holds.numpy(), stuff
    )
    table = [(s.id, s.prompt_id, s.isthing) for s in ours.segments]
    assert table == [(1, 0, True), (2, 2, False), (3, 1, True)]
    assert [s.area for s in ours.segments] == np.bincount(ours.ids.ravel())[1:].tolist()
    rows = [0, 3, 4, 2]
    canvas = torch.nn.functional.interpolate(logits[None], scale_factor=4.0, mode="bilinear")[0]
    drawn, segments = panoptic_map(
        queries.scores[rows].logit(), canvas[rows], canvas.shape[1:], SIZE, Vocabulary((0, 1), 3)
    )
    assert [(s.id, s.category_id, s.isthing) for s in segments] == table
    assert (drawn.numpy() == ours.ids).mean() > 0.97


def test_a_region_that_others_cover_is_no_segment():
    _, queries = example()
    hidden = queries.masks.clone()
    hidden[2] = queries.masks[0]  # under the first, which is surer
    hidden[2, 20, 30] = 1.0
    found = paint_segments(
        AllQueries(queries.scores, queries.strength, hidden, queries.boxes, queries.filled), 0.5
    )
    assert found.holds.tolist() == [True, True, True, False]
    assert OVERLAP == 0.4


def test_nothing_sure_is_an_empty_map():
    _, queries = example()
    weak = AllQueries(
        queries.scores, queries.strength * 0, queries.masks, queries.boxes, queries.filled
    )
    found = paint_segments(weak, 0.5)
    assert len(found.prompts) == len(found.holds) == 0
    assert not argmax_upsampled(found.maps.values, found.maps.gates, SIZE, queries.filled).any()
