"""Assignment against cases worked by hand."""

import torch

from ape_model.network.boxes import box_iou
from ape_model.training.losses.assignment import (
    assign_queries,
    assign_tokens,
    best_queries,
    equal_weights,
)
from ape_model.training.losses.semantic import token_shares

# Four cells of side 10 in a row, as x1, y1, x2, y2.
ANCHORS = torch.tensor([[float(10 * k), 0.0, 10.0 * k + 10, 10.0] for k in range(4)])


def regions(*boxes):
    return torch.tensor([boxes], dtype=torch.float32)


def test_a_region_gets_the_anchors_that_it_covers():
    boxes = regions([0, 0, 20, 10])
    found = assign_tokens(ANCHORS, boxes, torch.tensor([[True]]), threshold=0.6, least=2)
    assert found.tolist() == [[0, 0, -1, -1]]


def test_an_anchor_over_the_threshold_is_assigned_beyond_the_least_number():
    boxes = regions([0, 0, 10, 10])
    anchors = torch.cat([ANCHORS[:1], ANCHORS[:1] + 1, ANCHORS[2:]])  # IoU 1 and 81 / 119
    found = assign_tokens(anchors, boxes, torch.tensor([[True]]), threshold=0.6, least=1)
    assert found.tolist() == [[0, 0, -1, -1]]


def test_a_small_thing_wins_over_what_it_stands_on():
    boxes = regions([0, 0, 40, 10], [10, 0, 20, 10])
    found = assign_tokens(ANCHORS, boxes, torch.tensor([[True, True]]), threshold=0.6, least=4)
    assert found[0, 1] == 1
    assert found[0, [0, 2, 3]].tolist() == [0, 0, 0]


def test_padding_is_never_assigned():
    boxes = regions([0, 0, 20, 10], [0, 0, 0, 0])
    valid = torch.tensor([[True, False]])
    assert 1 not in assign_tokens(ANCHORS, boxes, valid).tolist()[0]
    assert 1 not in assign_queries(ANCHORS[None], boxes, valid, 0.5)[0].tolist()[0]


def test_an_anchor_in_the_padding_is_never_assigned():
    boxes, valid = regions([0, 0, 40, 10]), torch.tensor([[True]])
    padded = torch.tensor([[False, True, False, True]])
    found = assign_tokens(ANCHORS, boxes, valid, padded=padded, threshold=0.2, least=4)
    assert found.tolist() == [[0, -1, 0, -1]]


def test_an_image_without_regions_assigns_nothing():
    boxes, valid = regions([0, 0, 0, 0]), torch.tensor([[False]])
    assert assign_tokens(ANCHORS, boxes, valid).tolist() == [[-1] * 4]
    region, overlap = assign_queries(ANCHORS[None], boxes, valid, 0.5)
    assert region.tolist() == [[-1] * 4]
    assert overlap.tolist() == [[0.0] * 4]


def test_every_query_over_the_threshold_answers_for_its_region():
    boxes = regions([0, 0, 10, 10])
    predicted = torch.tensor([[[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4], [30, 0, 40, 10]]])
    region, overlap = assign_queries(predicted.float(), boxes, torch.tensor([[True]]), 0.6)
    assert region.tolist() == [[0, 0, -1, -1]]
    torch.testing.assert_close(overlap, torch.tensor([[1.0, 0.8, 0.4, 0.0]]))


def test_the_best_query_of_a_region_answers_at_any_overlap():
    boxes = regions([0, 0, 10, 10])
    predicted = torch.tensor([[[0.0, 0.0, 10.0, 2.0], [0.0, 0.0, 10.0, 3.0]]])
    region, _ = assign_queries(predicted, boxes, torch.tensor([[True]]), 0.6)
    assert region.tolist() == [[-1, 0]]


def test_a_region_that_no_query_touches_forces_none():
    region, _ = assign_queries(ANCHORS[None], regions([0, 50, 10, 60]), torch.tensor([[True]]), 0.5)
    assert region.tolist() == [[-1] * 4]


def test_equal_weights_let_every_region_count_one():
    weights = equal_weights(torch.tensor([[0, 0, 0, 1, -1]]), 2)
    torch.testing.assert_close(weights, torch.tensor([[1 / 3, 1 / 3, 1 / 3, 1.0, 0.0]]))


def test_the_best_query_of_each_region_is_the_one_that_overlaps_it_most():
    predicted = torch.tensor(
        [[[0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 9.0]]]
    )
    assert best_queries(predicted, regions([20, 0, 30, 10], [0, 0, 10, 10])).tolist() == [[2, 1]]


def test_wide_regions_share_the_queries_by_what_these_already_are():
    # Both regions are as wide as the image, and so are all three queries: IoU prefers the first.
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.1, 1.0, 1.0]]])
    valid = torch.tensor([[True, True]])
    predicted = torch.tensor([[[0.0, 0.0, 1.0, 0.99]] * 2 + [[0.0, 0.05, 1.0, 1.0]]])
    by_box, _ = assign_queries(predicted, boxes, valid, 0.6)
    assert by_box.tolist() == [[0, 0, 1]]
    # The second query has the class of the second region, the third that of the first.
    fit = torch.tensor([[[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]]])
    region, overlap = assign_queries(predicted, boxes, valid, 0.6, fit)
    assert region.tolist() == [[0, 1, 0]]
    expected = box_iou(predicted, boxes)[0, [0, 1, 2], [0, 1, 0]]
    torch.testing.assert_close(overlap[0], expected)


def test_what_fits_does_not_replace_the_overlap():
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    predicted = torch.tensor([[[0.0, 0.0, 0.5, 0.4], [0.5, 0.5, 1.0, 0.9]]])
    wrong = torch.tensor([[[0.01, 1.0], [1.0, 0.01]]])
    region, _ = assign_queries(predicted, boxes, torch.tensor([[True, True]]), 0.6, wrong)
    assert region.tolist() == [[0, 1]]
    none, overlap = assign_queries(predicted, boxes, torch.tensor([[False, False]]), 0.6, wrong)
    assert none.tolist() == [[-1, -1]]
    assert overlap.tolist() == [[0, 0]]


def test_with_masks_a_region_claims_the_anchors_on_it_and_not_those_at_its_centre():
    # Five anchors in a row; the first region is what shows at both ends, the second the middle.
    left = torch.arange(5) * 0.2
    anchors = torch.stack([left, torch.full((5,), 0.4), left + 0.2, torch.full((5,), 0.6)], dim=-1)
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.3, 1.0, 0.7]]])
    valid = torch.tensor([[True, True]])
    shares = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]])
    blind = assign_tokens(anchors, boxes, valid, least=3)
    assert (blind == 0).sum() == 0  # the second region's box is nearer to every anchor
    seeing = assign_tokens(anchors, boxes, valid, shares=shares, least=3)
    assert seeing.tolist() == [[0, 1, 1, 1, 0]]
    padding = torch.tensor([[True, False]])
    assert (assign_tokens(anchors, boxes, padding, shares=shares, least=3) != 1).all()


def test_shares_of_tokens_are_those_of_the_masks_at_every_level():
    masks = torch.zeros(1, 2, 8, 8)
    masks[0, 0, :, :4] = 1
    masks[0, 1, 0, 7] = 1
    shares = token_shares(masks)
    assert shares.shape == (1, 16 + 4 + 1, 2)
    assert shares[0, :, 0].tolist() == [1, 1, 0, 0] * 4 + [1, 0] * 2 + [0.5]
    assert shares[0, 3, 1] == 1 / 4
    assert shares[0, 17, 1] == 1 / 16
    assert shares[0, 20, 1] == 1 / 64
