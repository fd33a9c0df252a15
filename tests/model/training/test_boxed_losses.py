"""Masks from boxes alone, against cases worked by hand."""

import math

import pytest
import torch

from ape_model.training.losses.boxed import affinity_loss, projection_loss, similar_neighbours

SURE = 40.0
BOX = torch.tensor([[1.0, 1.0, 3.0, 4.0]])  # x1, y1, x2, y2 in cells


def mask(rows, cols):
    """(1, 4, 4) logits of a mask that is surely these cells and no other."""
    logits = torch.full((1, 4, 4), -SURE)
    for row, col in zip(rows, cols, strict=True):
        logits[0, row, col] = SURE
    return logits


def test_a_mask_that_touches_all_sides_of_its_box_throws_its_shadow():
    # A diagonal is enough: columns 1 and 2, rows 1, 2 and 3.
    assert projection_loss(mask((1, 2, 3), (1, 2, 2)), BOX).item() == pytest.approx(0, abs=1e-6)


def test_a_shadow_that_is_too_small_or_too_large_costs_its_dice():
    # Columns right; rows 1 and 2 of 1 to 3: 1 - (2 * 2 + 1) / (2 + 3 + 1).
    short = projection_loss(mask((1, 2), (1, 2)), BOX)
    assert short.item() == pytest.approx(1 / 6, abs=1e-6)
    # Rows right; column 0 in addition to 1 and 2: 1 - (2 * 2 + 1) / (3 + 2 + 1).
    wide = projection_loss(mask((1, 2, 3), (0, 1, 2)), BOX)
    assert wide.item() == pytest.approx(1 / 6, abs=1e-6)


def test_a_cell_that_a_box_covers_by_half_is_wanted_by_half():
    half = torch.tensor([[1.0, 1.0, 2.5, 4.0]])
    # Columns: wanted 0, 1, .5, 0; shadow on 1 alone: 1 - (2 * 1 + 1) / (1 + 1.5 + 1).
    loss = projection_loss(mask((1, 2, 3), (1, 1, 1)), half)
    assert loss.item() == pytest.approx(1 - 3 / 3.5, abs=1e-6)


def test_neighbours_of_one_colour_are_found_and_none_beyond_the_border():
    colours = torch.zeros(1, 3, 1, 5)
    colours[..., 3:] = 1.0  # cells 0 to 2 are dark, 3 and 4 bright
    pairs = similar_neighbours(colours)
    assert pairs.shape == (1, 4, 1, 5)
    assert pairs[0, 0, 0].tolist() == [True, False, False, False, False]  # two to the right
    assert not pairs[0, 1:].any()  # there is one row


def test_affinity_is_the_cross_entropy_of_agreement():
    similar = torch.zeros(1, 4, 1, 5, dtype=torch.bool)
    similar[0, 0, 0, :2] = True  # cells 0 and 2, 1 and 3
    inside = torch.ones(1, 1, 5, dtype=torch.bool)
    logits = torch.tensor([[[SURE, SURE, SURE, 0.0, -SURE]]])
    # The first pair agrees; of the second one, one cell is undecided: ln 2.
    assert affinity_loss(logits, similar, inside).item() == pytest.approx(math.log(2) / 2, abs=1e-5)
    inside[..., 1] = False
    assert affinity_loss(logits, similar, inside).item() == pytest.approx(0, abs=1e-5)
    assert affinity_loss(logits, similar & False, inside).item() == 0


def test_colour_decides_what_the_shadow_leaves_open():
    """The two losses alone find a bright object in its box."""
    colours = torch.full((1, 3, 12, 12), -1.0)
    truth = torch.zeros(1, 12, 12)
    truth[0, 2:10, 5:7] = truth[0, 5:7, 2:10] = 1  # a cross: half of its box is background
    colours[:, :, truth[0] > 0] = 1.0
    box = torch.tensor([[2.0, 2.0, 10.0, 10.0]])
    inside = torch.zeros(1, 12, 12, dtype=torch.bool)
    inside[0, 2:10, 2:10] = True
    logits = (truth - 0.5).mul(0.4).add(torch.linspace(-0.1, 0.1, 12)).requires_grad_()
    similar = similar_neighbours(colours)
    for _ in range(60):
        loss = projection_loss(logits, box) + affinity_loss(logits, similar, inside)
        [slope] = torch.autograd.grad(loss.sum(), logits)
        logits = (logits - 0.2 * slope.sign()).detach().requires_grad_()
    wrong = ((logits > 0) != (truth > 0)).sum()
    assert wrong.item() == 0
