"""The choice of queries in fixed sizes, against the choice as the paper has it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ape_model.config import PRESETS
from ape_model.network.geometry import Levels
from ape_model.network.proposals import select_queries, survivors_per_level
from ape_model.reference import modules as reference

LEVELS = (
    Levels(((8, 8), (4, 4), (2, 2))),
    Levels(((6, 9), (3, 5), (2, 3), (1, 2), (1, 1))),
    Levels(((7, 7),)),
    Levels(((2, 2), (1, 1))),
)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
        ],
    ),
]


def tokens(levels, random):
    """Objectness with ties, and boxes of which a third are one and some have no area."""
    N = levels.total
    objectness = torch.randn(N, generator=random) * 3
    objectness = torch.where(objectness > 1, objectness.round(), objectness)
    boxes = torch.rand(N, 4, generator=random) * torch.tensor([1, 1, 0.5, 0.5])
    kind = torch.rand(N, generator=random)
    boxes[kind < 0.3] = 1.0
    objectness[kind < 0.3] = -2.0
    boxes[kind > 0.95, 2:] = 0.0
    return objectness, boxes


def both(objectness, boxes, levels, **changes):
    config = replace(PRESETS["Ti"], **changes)
    block = SimpleNamespace(config=config)
    mine = select_queries(objectness, boxes.__getitem__, levels, config)
    return mine, reference.select_queries(block, objectness, boxes.__getitem__, levels)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("levels", LEVELS, ids=lambda levels: f"{levels.total} tokens")
@pytest.mark.parametrize("topk", [3, 8, 1000])  # 8 and 1000: more than small levels have
@pytest.mark.parametrize("queries", [1, 4, 12, 40])  # at last more than ever survive
def test_fixed_sizes_choose_the_same_tokens(device, levels, topk, queries):
    random = torch.Generator().manual_seed(levels.total * topk + queries)
    for _ in range(12):
        objectness, boxes = (t.to(device) for t in tokens(levels, random))
        for iou in (0.2, 0.9):
            mine, plain = both(
                objectness, boxes, levels, pre_nms_topk=topk, queries=queries, proposal_nms=iou
            )
            assert torch.equal(mine, plain)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_precision_chooses_the_same_tokens(dtype):
    random = torch.Generator().manual_seed(0)
    exact = torch.promote_types(dtype, torch.float32)
    for _ in range(10):
        objectness, boxes = tokens(LEVELS[0], random)
        mine, plain = both(
            objectness.to(dtype), boxes.to(exact), LEVELS[0], pre_nms_topk=20, queries=10
        )
        assert torch.equal(mine, plain)


def test_scores_that_vanish_leave_their_places_to_tokens_of_other_levels():
    objectness = torch.full((LEVELS[0].total,), -200.0)  # a sigmoid of exactly 0, all tied
    objectness[70:] = torch.arange(14.0)
    _, boxes = tokens(LEVELS[0], torch.Generator().manual_seed(1))
    for queries in (4, 20):
        mine, plain = both(objectness, boxes, LEVELS[0], pre_nms_topk=30, queries=queries)
        assert torch.equal(mine, plain)


def test_every_level_has_its_quota_of_the_survivors():
    levels, random = LEVELS[0], torch.Generator().manual_seed(3)
    objectness, boxes = torch.randn(levels.total, generator=random), torch.rand(levels.total, 4)
    boxes[:, 2:] = 0.01  # none touches another
    objectness[:64] += 100
    config = replace(PRESETS["Ti"], pre_nms_topk=64, queries=12, proposal_nms=0.5)
    chosen = select_queries(objectness, boxes.__getitem__, levels, config)
    level_of = torch.bucketize(chosen, torch.tensor(levels.starts), right=True)
    assert level_of.bincount().tolist() == [0, 4, 4, 4]
    assert (objectness[chosen].diff() <= 0).all()
    _, stay = survivors_per_level(objectness, boxes.__getitem__, levels, config)
    assert stay.sum(0).max() == 1


def test_nothing_of_the_choice_depends_on_the_scores():
    config = replace(PRESETS["Ti"], pre_nms_topk=8, queries=12)
    objectness, boxes = tokens(LEVELS[0], torch.Generator().manual_seed(0))

    def choice(objectness, boxes):
        return select_queries(objectness, boxes.__getitem__, LEVELS[0], config)

    whole = torch.compile(choice, fullgraph=True, backend="eager", dynamic=False)
    assert torch.equal(whole(objectness, boxes), choice(objectness, boxes))
