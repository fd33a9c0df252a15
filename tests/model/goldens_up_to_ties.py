"""Comparisons with goldens that hold on every processor: what ties may fall either way.

The last digit of float32 differs between processors, so two scores that are equal to 1e-6 may swap
places, and with them the rows that follow. Only such swaps are allowed.
"""

import torch

from ape_model.inference.selection import Selected
from ape_model.network.boxes import corners
from ape_model.reference.official_paste import to_output
from ape_model.reference.panoptic import MASK_SCORE, OBJECT_SCORE, TEMPERATURE

TIE = 1e-6


def assert_same_order(ours, golden, scores):
    """(K,) different indices in the order of (N,) scores, up to ties."""
    assert ours.shape == golden.shape
    assert len(ours.unique()) == len(golden.unique())
    mine, theirs = scores[ours], scores[golden]
    torch.testing.assert_close(mine, theirs, rtol=TIE, atol=TIE)
    for here, there in ((ours, golden), (golden, ours)):
        for index in here[~torch.isin(here, there)]:  # tied with what the other list has instead
            rivals = scores[there[~torch.isin(there, here)]]
            assert ((rivals - scores[index]).abs() <= TIE).any(), (
                f"{int(index)} is in one list alone"
            )


def golden_rows(ours, queries, prompts, logits, boxes, size):
    """Our detections in the golden's order, after a check that both have the same up to ties.

    Args:
        ours: `Selected` of one image.
        queries: (K,) of the golden.
        prompts: (K,) of the golden.
        logits: (Q, P) that ours were selected from.
        boxes: (Q, 4) cx, cy, w, h in 0..1.
        size: Height and width in pixels that boxes are scaled to.
    """
    columns, scores = logits.shape[1], logits.sigmoid()
    assert_same_order(
        ours.queries * columns + ours.prompts, queries * columns + prompts, scores.flatten()
    )
    limit = boxes.new_tensor([size[1], size[0]] * 2)
    rectangles = torch.minimum((corners(boxes[queries]) * limit).clamp(min=0), limit)
    return Selected(rectangles, scores[queries, prompts], prompts, queries)


def assert_same_labels(amounts, golden):
    """(C, H, W) amounts whose argmax is the (H, W) golden, outside ties."""
    labels = amounts.argmax(0)
    best = amounts.max(0).values
    theirs = amounts.gather(0, golden.long()[None])[0]
    tie = TIE * amounts.abs().max().clamp(min=1)
    assert ((labels == golden) | (best - theirs <= tie)).all()


def decided_pixels(logits, canvas_logits, size, output):
    """(*output) bool: pixels of a panoptic map that no tie can give to another segment."""
    masks = to_output(canvas_logits, size, output).sigmoid()
    wanted = logits.sigmoid().max(-1).values > OBJECT_SCORE
    scores = (logits.sigmoid() / TEMPERATURE).softmax(-1).max(-1).values[wanted]
    if not len(scores):
        return torch.ones(output, dtype=torch.bool)
    claims = scores[:, None, None] * masks[wanted]  # (K, H, W)
    best = claims.topk(min(2, len(claims)), dim=0).values
    sure = best[0] - best[-1] > TIE if len(claims) > 1 else torch.ones(output, dtype=torch.bool)
    return sure & ((masks[wanted] - MASK_SCORE).abs() > TIE).all(0)
