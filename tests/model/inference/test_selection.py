"""The choice of regions: equal to its reference form, at any capacity, without a wait."""

from dataclasses import fields

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ape_model.inference import selection
from ape_model.inference.selection import NMS_IOU, Selected, select
from ape_model.reference import modules, official_topk

ROOMS = (None, 1, 7, 64, 4096)  # too small, just right, too large


def crowd(images, queries, seed=0, spread=0.5):
    """Boxes of which many overlap, and many are equal."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randint(5, (images, queries, 2), generator=random) / 4 * spread
    sides = torch.randint(1, 4, (images, queries, 2), generator=random) / 8
    return torch.cat([centres, sides], -1)


def random_logits(*shape, seed=0, mean=-2.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + mean


def assert_matches_reference(logits, boxes, thresholds, per_prompt, capacity, nms=NMS_IOU):
    (images,) = select(
        [(logits, boxes, thresholds)], per_prompt=per_prompt, nms=nms, capacity=capacity
    )
    for found, one, rectangles in zip(images, logits, boxes, strict=True):
        wanted = modules.select(one, rectangles, thresholds, per_prompt=per_prompt, nms=nms)
        for field in fields(Selected):
            assert torch.equal(getattr(found, field.name), getattr(wanted, field.name)), field.name
    return images


@pytest.mark.parametrize("capacity", ROOMS)
@pytest.mark.parametrize("per_prompt", [1, 3, 100])
@pytest.mark.parametrize("shape", [(1, 30, 1), (2, 30, 9), (3, 1, 40), (2, 12, 2500)])
def test_the_same_pairs_as_the_plain_twin(shape, per_prompt, capacity):
    logits, boxes = random_logits(*shape), crowd(*shape[:2])
    thresholds = torch.linspace(0.1, 0.9, shape[2])
    found = assert_matches_reference(logits, boxes, thresholds, per_prompt, capacity)
    assert any(len(one.scores) for one in found)


@pytest.mark.parametrize("capacity", ROOMS)
def test_ties_fall_as_in_the_plain_twin(capacity):
    logits = random_logits(2, 40, 6).round()  # few values: most pairs tie
    found = assert_matches_reference(
        logits, crowd(2, 40), torch.full((6,), 0.1), 4, capacity, nms=0.3
    )
    assert all(len(one.scores) > one.scores.unique().numel() for one in found)


@pytest.mark.parametrize("capacity", [None, 64])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_score_at_the_threshold_is_kept_and_the_next_below_is_not(dtype, capacity):
    logits = torch.tensor([-9.0, -1.3, -0.01, 0.0, 0.4, 3.7, 14.0]).to(dtype)
    thresholds = selection.scores_of(logits)
    logits = torch.stack([logits, torch.nextafter(logits, torch.full_like(logits, -99))])[None]
    boxes = crowd(1, 2, spread=3).to(torch.promote_types(dtype, torch.float32))
    found = assert_matches_reference(logits, boxes, thresholds, 5, capacity)
    assert set(found[0].prompts.tolist()) == set(range(7))


@pytest.mark.parametrize("capacity", [None, 4096])
def test_what_is_no_number_and_what_is_endless(capacity):
    logits = random_logits(2, 20, 5)
    logits[0, 3] = logits[1, :, 2] = torch.nan
    logits[0, 4, 0], logits[0, 5, 0] = torch.inf, -torch.inf
    boxes = crowd(2, 20)
    boxes[1, 7, 2] = torch.nan
    (images,) = select([(logits, boxes, torch.zeros(5))], per_prompt=100, capacity=capacity)
    assert 3 not in images[0].queries
    assert 2 not in images[1].prompts
    assert images[0].scores[0] == 1
    assert {0, 1, 2, 3, 4} == set(images[0].prompts.tolist())


@pytest.mark.parametrize("capacity", ROOMS)
def test_beyond_the_limit_of_candidates_each_prompts_strongest_enter(monkeypatch, capacity):
    logits, boxes = random_logits(2, 25, 6, mean=3.0), crowd(2, 25)
    given = logits, boxes, torch.full((6,), 0.2), 2, capacity
    many = assert_matches_reference(*given, nms=0.1)
    monkeypatch.setattr(selection, "CANDIDATES", 12)  # two of each prompt, which may overlap
    few = assert_matches_reference(*given, nms=0.1)
    assert len(few[0].scores) < len(many[0].scores)


@pytest.mark.parametrize("capacity", [None, 8])
def test_one_query_may_be_several_prompts_and_prompts_may_be_thousands(capacity):
    logits = torch.full((1, 3, 5000), -20.0)
    logits[0, 1, ::500] = 2.0
    found = assert_matches_reference(logits, crowd(1, 3), torch.full((5000,), 0.5), 100, capacity)[
        0
    ]
    assert found.queries.tolist() == [1] * 10
    assert found.prompts.tolist() == list(range(0, 5000, 500))


def test_a_table_is_made_again_only_where_pairs_are_missing(monkeypatch):
    given = random_logits(1, 20, 4), crowd(1, 20), torch.full((4,), 0.1)
    count = int(selection.threshold_and_nms(*given, nms=NMS_IOU, capacity=None).count)
    capacities, make = [], selection.threshold_and_nms

    def counted(*batch, nms, capacity):
        capacities.append(capacity)
        return make(*batch, nms=nms, capacity=capacity)

    monkeypatch.setattr(selection, "threshold_and_nms", counted)
    for capacity in (count, count - 1):
        assert_matches_reference(*given, 100, capacity)
    assert count > 30
    assert capacities == [count, count - 1, 64]


@pytest.mark.parametrize("capacity", [None, 16])
def test_nothing_is_found_where_nothing_is(capacity):
    found = assert_matches_reference(
        torch.full((2, 5, 3), -20.0), crowd(2, 5), torch.full((3,), 0.5), 9, capacity
    )
    assert [len(one.scores) for one in found] == [0, 0]


@pytest.mark.parametrize("capacity", [None, 16, 4096])
def test_batches_are_picked_as_if_alone(capacity):
    batches = [
        (random_logits(2, 20, 7), crowd(2, 20), torch.full((7,), 0.1)),
        (random_logits(2, 20, 2, seed=1), crowd(2, 20, seed=1), torch.full((2,), 0.3)),
    ]
    together = select(batches, per_prompt=5, capacity=capacity)
    for batch, images in zip(batches, together, strict=True):
        for mine, alone in zip(images, assert_matches_reference(*batch, 5, capacity), strict=True):
            assert torch.equal(mine.queries, alone.queries)


def test_a_step_of_suppression_changes_nothing(monkeypatch):
    logits, boxes = random_logits(1, 40, 30, mean=2.0), crowd(1, 40)
    monkeypatch.setattr(official_topk, "PAIR_BUDGET", 1000)
    monkeypatch.setattr("ape_cuda_ops.backends.reference.MAX_PAIRS", 1700)
    assert_matches_reference(logits, boxes, torch.full((30,), 0.2), 100, None)


class OnMeta(TorchDispatchMode):
    """Nothing comes from the host: the copy would wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        found = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        assert {tensor.device.type for tensor in found} <= {"meta"}, func
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_table_asks_for_no_value(dtype):
    """On tensors without data all that needs a value, or the size of a choice, is an error."""
    logits = torch.empty(2, 30, 9, dtype=dtype, device="meta")
    boxes, thresholds = torch.empty(2, 30, 4, device="meta"), torch.empty(9, device="meta")
    with OnMeta():
        table = selection.threshold_and_nms(logits, boxes, thresholds, nms=0.7, capacity=64)
    assert table.keep.shape == (64,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("shape", [(2, 30, 9), (1, 900, 1203)])
def test_the_table_of_a_gpu_is_the_cpus_and_waits_for_nothing(shape):
    logits, boxes = random_logits(*shape), crowd(*shape[:2])
    given = logits, boxes, torch.full((shape[2],), 0.6)
    there = [tensor.cuda() for tensor in given]
    table = selection.threshold_and_nms(
        *there, nms=NMS_IOU, capacity=4096
    )  # compiles and loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        table = selection.threshold_and_nms(*there, nms=NMS_IOU, capacity=4096)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    plain = selection.threshold_and_nms(*given, nms=NMS_IOU, capacity=4096)
    assert torch.equal(table.keep.cpu(), plain.keep)
    assert torch.equal(table.queries.cpu(), plain.queries)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_host_that_sees_the_values_tables_only_pairs_above(dtype):
    """Scores that lie close together pass a rough sieve by the million."""
    random = torch.Generator().manual_seed(0)
    logits = (torch.randn((1, 50, 300), generator=random) * 0.05 - 4.6).to(dtype)
    limit = logits.sigmoid().flatten().topk(20).values[-1].float().expand(300)
    boxes = torch.full((1, 50, 4), 0.5)
    table = selection.threshold_and_nms(logits, boxes, limit, nms=NMS_IOU, capacity=None)
    assert table.above.all()
    assert 20 <= len(table.scores) < 200
