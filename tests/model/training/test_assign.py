"""Assignment against cases worked by hand."""

import torch

from ape_model.training.losses.assignment import (
    assign_queries,
    assign_tokens,
    best_queries,
    equal_weights,
)

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
