"""Non-maximum suppression of every backend, compared with the textbook loop."""

from itertools import pairwise

import pytest
import torch

from ape_cuda_ops.backends import reference


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (31, 32), (33, 0, 1, 2, 0, 100, 2), (1, 1)])
@pytest.mark.parametrize("padding", [0, 5])
def test_nms_keeps_what_greedy_suppression_keeps(post_backend, sizes, padding, monkeypatch):
    monkeypatch.setattr(reference, "MAX_PAIRS", 1200)  # makes several steps
    random = torch.Generator().manual_seed(sum(sizes))
    boxes = torch.rand((padding + sum(sizes) + padding, 4), generator=random)
    boxes[..., 2:] = boxes[..., :2] + 0.3 * boxes[..., 2:]
    starts = padding + torch.tensor([0, *sizes]).cumsum(0)
    keep = post_backend.nms_grouped(boxes, starts, 0.4)
    assert torch.equal(keep, greedy(boxes, starts.tolist(), 0.4))


def greedy(boxes, starts, threshold):
    keep = torch.zeros(len(boxes), dtype=torch.bool)
    for first, end in pairwise(starts):
        for i in range(first, end):
            overlaps = [iou(boxes[i], boxes[j]) > threshold for j in range(first, i) if keep[j]]
            keep[i] = not any(overlaps)
    return keep


def iou(a, b):
    overlap = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
    return overlap / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap)
