"""Comparisons with goldens allow ties to fall either way, and nothing else."""

import pytest
import torch
from goldens_up_to_ties import (
    assert_same_labels,
    assert_same_order,
    decided_pixels,
    golden_rows,
)

from ape_model.inference.selection import Selected

SCORES = torch.tensor([0.9, 0.5 + 4e-7, 0.5, 0.3, 0.3 - 4e-7, 0.1])


def order(*indices):
    return torch.tensor(indices)


@pytest.mark.parametrize(
    "golden",
    [
        pytest.param(order(0, 1, 2, 3), id="equal"),
        pytest.param(order(0, 2, 1, 3), id="neighbours swapped"),
        pytest.param(order(0, 1, 2, 4), id="another one of a tie at the end"),
    ],
)
def test_ties_may_fall_either_way(golden):
    assert_same_order(order(0, 1, 2, 3), golden, SCORES)


@pytest.mark.parametrize(
    "golden",
    [
        pytest.param(order(1, 0, 2, 3), id="swapped without a tie"),
        pytest.param(order(0, 1, 2, 5), id="another one without a tie"),
        pytest.param(order(0, 1, 2), id="one too few"),
        pytest.param(order(0, 1, 1, 3), id="one twice"),
    ],
)
def test_a_real_difference_in_the_order_fails(golden):
    with pytest.raises(AssertionError):
        assert_same_order(order(0, 1, 2, 3), golden, SCORES)


def test_our_detections_are_given_in_the_order_of_the_golden():
    logits, boxes = SCORES.logit()[:, None], torch.rand(6, 4) / 2 + 0.25
    none = torch.zeros(3, dtype=torch.int64)
    ours = Selected(boxes[:3], SCORES[:3], none, order(0, 1, 2))
    best = golden_rows(ours, order(0, 2, 1), none, logits, boxes, (10, 20))
    assert best.queries.tolist() == [0, 2, 1]
    torch.testing.assert_close(best.scores, SCORES[[0, 2, 1]])
    with pytest.raises(AssertionError):
        golden_rows(ours, order(0, 1, 3), none, logits, boxes, (10, 20))


def test_labels_differ_at_ties_alone():
    amounts = torch.tensor([[[0.5, 0.9]], [[0.5 - 4e-7, 0.1]]])
    assert_same_labels(amounts, torch.tensor([[1, 0]], dtype=torch.uint8))
    with pytest.raises(AssertionError):
        assert_same_labels(amounts, torch.tensor([[0, 1]], dtype=torch.uint8))


def test_pixels_that_two_segments_claim_alike_are_undecided():
    logits = torch.tensor([[3.0], [3.0]])
    masks = torch.tensor([[[2.0, 2.0]], [[2.0, -2.0]]])
    assert decided_pixels(logits, masks, (1, 2), (1, 2)).tolist() == [[False, True]]
