"""The criterion of the released models, in cases worked by hand, and its gradients."""

import math

import pytest
import torch

from ape_model.training.losses.deta import FIRST_STAGE, Pairs, StageRule, assign, second_stage
from ape_model.training.losses.official import CriterionConfig, OfficialCriterion
from ape_model.training.losses.points import draw_points, sample

SQUARE = [0.5, 0.5, 0.2, 0.2]


def moved(share):
    """The square moved by a share of its side: IoU (1 - s) / (1 + s)."""
    return [0.5 + 0.2 * share, 0.5, 0.2, 0.2]


def matched(predicted, regions, rule, valid=None):
    boxes = torch.tensor([regions])
    valid = torch.ones(1, len(regions), dtype=torch.bool) if valid is None else valid
    pairs = assign(torch.tensor([predicted]), boxes, valid, rule)
    return sorted(zip(pairs.prediction.tolist(), pairs.region.tolist(), strict=True))


FAR = [0.1, 0.1, 0.05, 0.05]
RULE = second_stage(900)


@pytest.mark.parametrize(
    ("predicted", "regions", "rule", "expected"),
    [
        # IoU 0.818, 0.667 and 0.538: from 0.6 on a query is matched.
        ([moved(0.1), moved(0.2), moved(0.3), FAR], [SQUARE], RULE, [(0, 0), (1, 0)]),
        # The best of a region is matched at any IoU, here 0.25.
        ([moved(0.6), moved(0.8), FAR], [SQUARE], RULE, [(0, 0)]),
        # Six fit; the four of the largest IoU stay.
        (
            [moved(s) for s in (0.15, 0.0, 0.05, 0.2, 0.1, 0.12)],
            [SQUARE],
            RULE,
            [(1, 0), (2, 0), (4, 0), (5, 0)],
        ),
        # The best query of the second region overlaps the first one more: it counts for that one
        # alone, which then has two, and the second has none.
        ([moved(0.0), moved(0.3)], [SQUARE, moved(1.1)], RULE, [(0, 0), (1, 0)]),
        # An anchor between 0.3 and 0.7 (0.538 here) is neither matched nor background.
        ([moved(0.0), moved(0.3), FAR], [SQUARE], FIRST_STAGE, [(0, 0)]),
        # A quarter of twelve samples may be matched ones: three, whichever are drawn.
        ([moved(0.1)] * 12, [SQUARE], second_stage(12), 3),
        # Two that tie for a region are both its best.
        (
            [[0.375, 0.5, 0.25, 0.25], [0.625, 0.5, 0.25, 0.25], FAR],
            [[0.5, 0.5, 0.25, 0.25]],
            RULE,
            [(0, 0), (1, 0)],
        ),
    ],
)
def test_who_learns_what(predicted, regions, rule, expected):
    found = matched(predicted, regions, rule)
    assert (len(found) if isinstance(expected, int) else found) == expected


def test_padding_and_empty_images_are_never_matched():
    valid = torch.tensor([[True, False]])
    assert matched([moved(0), FAR], [SQUARE, FAR], RULE, valid) == [(0, 0)]
    assert matched([moved(0)], [SQUARE], RULE, torch.tensor([[False]])) == []


def test_the_stages_are_those_of_the_release():
    assert StageRule(0.3, 0.7, 256, 0.5, 4) == FIRST_STAGE
    assert second_stage(900) == StageRule(0.6, 0.6, 900, 0.25, 4)


PAIRS = Pairs(torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([0, 1]))
BOXES = torch.tensor([[SQUARE, FAR]])


def test_the_terms_of_a_layer_by_hand():
    # Three undecided queries, two prompts; query 1 learns region 0 (prompt 0), 2 region 1.
    logits = torch.zeros(1, 3, 2)
    predicted = torch.tensor([[FAR, moved(0.5), FAR]])
    truth = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    found = OfficialCriterion().decoder_layer(logits, predicted, PAIRS, BOXES, truth)
    plain = 0.25 * math.log(2)  # (1 - p)^2 of an undecided score, times its cross entropy
    assert found["class"].item() == pytest.approx(2 * 0.25 * plain + 4 * 0.75 * plain)
    assert found["bbox"].item() == pytest.approx(0.1)
    # IoU 1/3, and the hull of both is their union.
    assert found["giou"].item() == pytest.approx(1 - 1 / 3, abs=1e-5)
    soft = OfficialCriterion(CriterionConfig(quality=True))
    quality = soft.decoder_layer(logits, predicted, PAIRS, BOXES, truth)["class"].item()
    # |1/2 - IoU|^2 times the cross entropy: 1/3 for query 1, 1 for query 2, 0 for the rest.
    assert quality == pytest.approx((1 / 36 + 1 / 4 + 4 / 4) * math.log(2), abs=1e-4)


def test_a_query_of_two_regions_learns_the_prompts_of_both():
    both = Pairs(torch.zeros(2, dtype=torch.int64), torch.tensor([1, 1]), torch.tensor([0, 1]))
    logits = torch.full((1, 2, 2), 20.0)
    logits[0, 0] = -20.0
    found = OfficialCriterion().decoder_layer(
        logits, BOXES, both, BOXES, torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    )
    assert found["class"].item() == pytest.approx(0, abs=1e-6)


def test_masks_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
    masks = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    dense = OfficialCriterion().mask_terms(logits, masks)
    plain = 0.25 * math.log(2)
    assert dense["mask"].item() == pytest.approx((3 * 0.25 + 0.75) / 4 * plain)
    assert dense["dice"].item() == pytest.approx(1 - (2 * 1.5 + 1) / (2 + 3 + 1))
    # Of logits of another size, what counts is what they are when resized.
    wide = torch.nn.functional.interpolate(logits[None], size=(8, 8))[0]
    masks8 = torch.nn.functional.interpolate(masks[None], size=(8, 8))[0]
    again = OfficialCriterion().mask_terms(wide, masks8)
    assert again["mask"].item() == pytest.approx(dense["mask"].item())
    at_points = OfficialCriterion(CriterionConfig(masks="points", points=7))
    assert at_points.mask_terms(logits, torch.ones(1, 2, 2))["mask"].item() < math.log(2) + 1e-6


def test_most_points_lie_where_a_mask_is_undecided():
    ramp = torch.linspace(-8, 8, 33).expand(1, 33, 33).clone()  # its edge is the middle column
    torch.manual_seed(0)
    points = draw_points(ramp, 400, 3.0, 0.75)
    assert points.shape == (1, 400, 2)
    near = (points[..., 0] - 0.5).abs() < 0.3
    assert near[0, :300].all()
    assert not near[0, 300:].all()
    centre = sample(ramp, torch.tensor([[[0.5, 0.5], [0.5 / 33, 0.5]]]))
    torch.testing.assert_close(centre, torch.tensor([[0.0, -8.0]]))


@pytest.mark.parametrize("masks", ["dense", "points"])
def test_gradients_are_those_of_the_losses(masks):
    torch.manual_seed(1)
    criterion = OfficialCriterion(CriterionConfig(masks=masks, points=6))
    soft = OfficialCriterion(CriterionConfig(quality=True))
    logits = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)
    boxes = (torch.rand(1, 3, 4, dtype=torch.float64) * 0.4 + 0.2).requires_grad_()
    cells = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    wanted = (torch.rand(2, 3, 3) > 0.5).double()
    truth = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    fixed = boxes.detach().clone()  # the IoU of a box is a target without a gradient

    def terms(logits, boxes, cells):
        torch.manual_seed(2)  # of the points
        found = criterion.decoder_layer(logits, boxes, PAIRS, BOXES.double(), truth)
        scores = soft.decoder_layer(logits, fixed, PAIRS, BOXES.double(), truth)["class"]
        return (*(found | criterion.mask_terms(cells, wanted)).values(), scores)

    assert torch.autograd.gradcheck(terms, (logits, boxes, cells))


def test_unknown_terms_are_refused():
    with pytest.raises(ValueError, match="no term 'iou'"):
        CriterionConfig(decoder=("class", "iou"))
    with pytest.raises(ValueError, match="no term 'mask'"):
        CriterionConfig(encoder=("mask",))
    with pytest.raises(ValueError, match="masks is 'some': it must be one of dense, points"):
        CriterionConfig(masks="some")
