"""Which pairs of a box and a prompt become regions, worked by hand."""

import numpy as np
import pytest
import torch

from ape_peers.regions import NEVER, Candidates, confident, strongest
from ape_stream.types import Mask

SIZE = (40, 100)
BOXES = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [-5, 20, 5, 60], [200, 0, 210, 9]]).float()
SCORES = torch.tensor([[0.9, 0.2], [0.8, 0.7], [0.5, NEVER], [0.95, 0.1]])
ONE = Candidates(BOXES, SCORES, torch.tensor([2, 0]))


def kept(found):
    scores = [round(score, 2) for score in found.scores.tolist()]
    return list(zip(found.prompt_ids.tolist(), scores, strict=True))


@pytest.mark.parametrize(
    ("nms", "per_prompt", "expected"),
    [
        (0.5, 9, [(2, 0.9), (0, 0.7), (2, 0.5)]),  # 0.8 overlaps 0.9 by 90 %
        (0.95, 9, [(2, 0.9), (2, 0.8), (0, 0.7), (2, 0.5)]),
        (0.95, 1, [(2, 0.9), (0, 0.7)]),
    ],
)
def test_regions_above_their_thresholds_without_duplicates(nms, per_prompt, expected):
    thresholds = torch.tensor([0.3, 0.0, 0.4])
    found = confident([ONE], SIZE, thresholds, nms=nms, per_prompt=per_prompt)
    assert kept(found) == expected
    assert found.masks is None


def test_boxes_are_cut_to_the_frame_and_those_outside_are_dropped():
    found = confident([ONE], SIZE, torch.zeros(3), nms=1.0, per_prompt=9)
    assert 0.95 not in dict(kept(found)).values()
    assert found.boxes[found.scores == 0.5].tolist() == [[0, 20, 5, 40]]
    assert (found.scores >= 0).all()  # a threshold of 0 keeps no pair that cannot be


def test_the_strongest_are_ranked_over_all_parts_as_they_are():
    other = Candidates(BOXES[:1] + 1, torch.tensor([[0.85]]), torch.tensor([1]))
    found = strongest([ONE, other], SIZE, 4)
    assert kept(found) == [(2, 0.95), (2, 0.9), (1, 0.85), (2, 0.8)]
    assert found.boxes[0].tolist() == [200, 0, 210, 9]
    assert found.boxes[2].tolist() == [1, 1, 11, 11]
    assert len(strongest([ONE, other], SIZE, 1000)) == 8  # all but the one that cannot be


def test_masks_follow_their_boxes():
    def masks(rows):
        return tuple(Mask(np.ones((row + 1, 1), np.bool_)) for row in rows)

    parts = [Candidates(BOXES, SCORES, torch.tensor([p, 2]), masks) for p in (0, 1)]
    found = strongest(parts, SIZE, 6)
    assert [len(mask.bitmap) for mask in found.masks] == [4, 4, 1, 1, 2, 2]
    mixed = [parts[0], Candidates(BOXES, SCORES, torch.tensor([1, 2]))]
    assert strongest(mixed, SIZE, 6).masks is None


def test_nothing_found_is_no_error():
    empty = Candidates(torch.zeros(0, 4), torch.zeros(0, 2), torch.tensor([0, 1]))
    assert len(strongest([empty], SIZE, 5)) == 0
    assert len(confident([empty], SIZE, torch.zeros(2), nms=0.5, per_prompt=5)) == 0
    assert len(confident([ONE], SIZE, torch.ones(3), nms=0.5, per_prompt=5)) == 0
