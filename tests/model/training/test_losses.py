"""Losses against cases worked by hand."""

import math

import pytest
import torch

from ape_model.training.losses.criterion import choose_region
from ape_model.training.losses.functional import (
    box_losses,
    dice_loss,
    focal_loss,
    generalised_iou,
    quality_focal_loss,
)


def test_focal_loss_of_an_undecided_score_is_worked_by_hand():
    # score .5: cross entropy ln 2, faded by .5 ** 2, weighed by alpha or 1 - alpha
    loss = focal_loss(torch.zeros(2), torch.tensor([1.0, 0.0]))
    expected = [0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)]
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_focal_loss_forgives_easy_cases_more_than_cross_entropy_does():
    easy, hard = focal_loss(torch.tensor([4.0, 0.0]), torch.ones(2))
    plain = math.log1p(math.exp(-4.0)) / math.log(2)
    assert easy / hard < plain / 100


def test_quality_focal_loss_is_zero_exactly_at_the_quality():
    quality = torch.tensor([0.2, 0.5, 0.9])
    torch.testing.assert_close(
        quality_focal_loss(torch.logit(quality), quality), torch.zeros(3), atol=1e-10, rtol=0
    )


def test_quality_focal_loss_worked_by_hand():
    # score .5, quality 1: (.5) ** 2 * ln 2
    loss = quality_focal_loss(torch.zeros(1), torch.ones(1))
    torch.testing.assert_close(loss, torch.tensor([0.25 * math.log(2)]))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([0.0, 0.0, 2.0, 2.0], 1.0),  # the same box
        ([1.0, 0.0, 3.0, 2.0], 1 / 3),  # half over: 2 / 6, the hull is the union
        ([3.0, 0.0, 4.0, 2.0], -2 / 8),  # apart: 0 - (8 - 6) / 8
    ],
)
def test_generalised_iou_worked_by_hand(second, expected):
    found = generalised_iou(torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor(second))
    assert found.item() == pytest.approx(expected)


def test_box_losses_add_coordinates_and_read_centres():
    one = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    other = torch.tensor([[0.6, 0.5, 0.2, 0.4]])
    l1, giou = box_losses(one, other)
    assert l1.item() == pytest.approx(0.3)
    # overlap .1 x .2, union .04 + .08 - .02, hull .3 x .4
    assert giou.item() == pytest.approx(1 - (0.02 / 0.10 - 0.02 / 0.12), abs=1e-5)


def test_a_box_of_no_size_has_finite_gradients():
    flat = torch.tensor([[0.5, 0.5, 0.0, 0.0]], requires_grad=True)
    l1, giou = box_losses(flat, torch.tensor([[0.5, 0.5, 0.0, 0.0]]))
    (l1 + giou).sum().backward()
    assert torch.isfinite(flat.grad).all()


def test_dice_loss_worked_by_hand():
    sure = torch.tensor([[[40.0, -40.0], [40.0, -40.0]]])
    wanted = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    # one cell in common, two and two cells, smoothed by one
    assert dice_loss(sure, wanted, (1, 2)).item() == pytest.approx(1 - 3 / 5)
    assert dice_loss(40 * (2 * wanted - 1), wanted, (1, 2)).item() == pytest.approx(0, abs=1e-6)


def test_choosing_a_region_looks_at_its_best_query_and_at_no_padding():
    # Two regions and one of padding; queries 2 and 0 answer for the regions.
    logits = torch.tensor([[[1.0, 0.0], [9.0, 9.0], [3.0, 0.0], [7.0, 7.0]]])  # (B, Q, L)
    best, valid = torch.tensor([[2, 0, 3]]), torch.tensor([[True, True, False]])
    truth = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    # Sentence 0 means region 0: logits 3 against 1. Sentence 1 means region 1: 0 against 0.
    expected = (math.log1p(math.exp(-2.0)) + math.log(2)) / 2
    assert choose_region(logits, best, valid, truth).item() == pytest.approx(expected)
