"""What the criterion asks, in cases worked by hand."""

import math

import pytest
import torch

from ape_model.training.losses.criterion import Criterion
from ape_model.training.losses.masks import mask_losses
from ape_model.training.losses.semantic import map_loss, semantic_shares


class Square:
    """Stands for a network whose queries draw what they are given."""

    class mask_head:  # noqa: N801
        @staticmethod
        def logits(hidden, _):
            return hidden


class Batch:
    """One image of two regions on 4 x 4 mask cells: the first has a mask, the second a box."""

    boxes = torch.tensor([[[8.0, 8.0, 16.0, 16.0], [8.0, 8.0, 16.0, 16.0]]]) / 256
    masks = (
        torch.tensor([[[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]])
        .repeat_interleave(2, dim=2)
        .repeat_interleave(2, dim=3)
    )
    masked = torch.tensor([[True, False]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    images = torch.zeros(1, 3, 16, 16)
    unit = 256


class Outputs:
    """Both queries draw the first region's mask."""

    class decoded:  # noqa: N801
        hidden = (40 * (2 * Batch.masks[:, :1] - 1).expand(1, 2, 4, 4),)

    mask_feature = None


def test_a_region_known_by_its_box_alone_teaches_what_its_box_says():
    found = mask_losses(Square(), Outputs(), Batch(), torch.tensor([[0, 1]]))
    assert found["mask"].item() == pytest.approx(0, abs=1e-6)
    assert found["dice"].item() == pytest.approx(0, abs=1e-6)
    wrong = mask_losses(Square(), Outputs(), Batch(), torch.tensor([[1, 0]]))
    assert wrong["mask"].item() == pytest.approx(0, abs=1e-6)  # the other query has the mask now
    # The second box is all four cells wide and high; the mask is its left half, columns 0 and 1:
    # 1 - (2 * 2 + 1) / (2 + 4 + 1) for the columns, nothing for the rows.
    assert found["projection"].item() == pytest.approx(2 / 7, abs=1e-6)
    # One colour everywhere: of 8 + 8 pairs along rows and columns and 4 + 4 along the diagonals,
    # those from the left half to the right one disagree, each of which costs 40 - ln 2.
    assert found["affinity"].item() == pytest.approx((40 - math.log(2)) * 16 / 24, rel=1e-3)


def test_without_regions_known_by_boxes_alone_there_is_no_such_loss():
    batch = Batch()
    batch.masked = torch.tensor([[True, True]])
    assert mask_losses(Square(), Outputs(), batch, torch.tensor([[0, 1]])).keys() == {
        "mask",
        "dice",
    }


def test_regions_without_any_mask_have_no_mask_loss_and_no_trouble():
    found = mask_losses(Square(), Outputs(), Batch(), torch.tensor([[1, -1]]))
    assert found["mask"].item() == found["dice"].item() == 0


def test_the_recipe_chooses_what_a_score_says():
    # An undecided score of a box that fits by half, and one of nothing.
    logits, quality = torch.zeros(2), torch.tensor([0.5, 0.0])
    there = quality > 0
    soft = Criterion(8, 8, "quality")._classify(logits, quality, there)
    torch.testing.assert_close(soft, torch.tensor([0.0, 0.25 * math.log(2)]))
    hard = Criterion(8, 8, "focal")._classify(logits, quality, there)
    expected = [0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)]
    torch.testing.assert_close(hard, torch.tensor(expected))


def test_a_token_whose_box_does_not_fit_yet_is_still_no_background():
    hard = Criterion(8, 8, "focal")._classify(torch.zeros(1), torch.zeros(1), torch.tensor([True]))
    assert hard.item() == pytest.approx(0.25 * 0.25 * math.log(2))


class Halves:
    """One image: its left half is of class 2, its right half of class 0; one row is padding."""

    masks = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]]])
    classes = torch.tensor([[2, 0, 0]])
    valid = torch.tensor([[True, True, False]])


def _semantic(scores, masks):
    return map_loss(semantic_shares(scores, masks).log(), Halves(), Halves.classes).item()


def test_a_semantic_map_is_judged_at_every_pixel_by_the_share_of_the_right_name():
    # Two queries paint a half each; the first one calls its half by the right name three to one.
    scores = torch.tensor([[[0.0, 0.2, 0.6], [0.5, 0.0, 0.0]]])
    masks = torch.tensor([[[[0.8, 0.0]], [[0.0, 0.9]]]])
    entropy = -math.log(0.75) / 2
    # Dice, with one cell of smoothing: class 0 is perfect, class 2 has three quarters of its cell.
    dice = (1 - (2 * 0.75 + 1) / (0.75 + 1 + 1)) / 2
    assert _semantic(scores, masks) == pytest.approx(entropy + dice, abs=1e-4)


def test_a_pixel_that_no_query_paints_is_a_fault_of_the_semantic_map():
    scores = torch.tensor([[[0.0, 0.0, 1.0]]])
    some = _semantic(scores, torch.tensor([[[[1.0, 0.0]]]]))
    # Class 0 has nothing of its cell: what the query paints on it, in vain, costs class 2 as well.
    assert some == pytest.approx(-math.log(1e-6) / 2 + 0.5 * (1 - 1 / 2), abs=1e-4)
    assert _semantic(scores, torch.tensor([[[[1.0, 1.0]]]])) > some


def test_maps_are_compared_at_their_own_stride_and_padding_counts_nothing():
    # Four by two cells on maps of half the size: each cell of the map is one region.
    class Fine(Halves):
        masks = Halves.masks.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    shares = torch.tensor([[[[0.1, 0.7]], [[0.1, 0.1]], [[0.8, 0.2]]]])
    coarse = map_loss(shares.log(), Halves(), Halves.classes)
    torch.testing.assert_close(map_loss(shares.log(), Fine(), Fine.classes), coarse)
    fewer = Halves()
    fewer.masks, fewer.classes = Halves.masks[:, :2], Halves.classes[:, :2]
    fewer.valid = Halves.valid[:, :2]
    torch.testing.assert_close(map_loss(shares.log(), fewer, fewer.classes), coarse)


def test_a_thin_region_counts_next_to_a_wide_one():
    class Pole(Halves):
        masks = torch.zeros(1, 2, 1, 16)
        masks[0, 0, 0, 0] = masks[0, 1, 0, 1:] = 1
        classes = torch.tensor([[1, 0]])
        valid = torch.tensor([[True, True]])

    def loss(wrong):
        shares = torch.full((1, 2, 1, 16), 0.01)
        shares[0, 0, 0, 1:] = shares[0, 1, 0, 0] = 0.99
        shares[0, :, 0, wrong] = shares[0, :, 0, wrong].flip(0)
        return map_loss(shares.log(), Pole(), Pole.classes).item()

    assert loss(0) > 2 * loss(5)
