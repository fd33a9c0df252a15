"""Which queries of a frame any reference word needs: those that its suppression leaves.

A network finds most objects several times. Of the queries of one object a word takes the one of the
highest score, and suppresses the others (`ape_stream.index.selection`); other words take the same
one, or one of few. So most queries are never seen, for any words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_stream.index.selection import NMS_IOU, suppresses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.indexing.loops import Loops

__all__ = ["survivors"]


def survivors(
    logits: NDArray[np.float32],
    boxes: NDArray[np.float32],
    floor: float,
    compiled: Loops | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Suppress the queries of each word, all words at once.

    Args:
        logits: (P, Q) of P words and Q queries.
        boxes: (Q, 4) x1 y1 x2 y2 of the queries.
        floor: Lowest logit of a region.
        compiled: Loops in place of NumPy's.

    Returns:
        (Q,) the highest logit with which a query survives; -inf where it never does. And (Q,) by
        how little it is suppressed: the smallest lead of a survivor that does; inf where none does.
    """
    if compiled is not None:
        return compiled.survivors(logits, boxes, floor, NMS_IOU)
    alive = floor <= logits  # (P, Q)
    some = alive.any(axis=1)
    alive, scores = alive[some], np.where(alive[some], logits[some], -np.inf)
    count = len(boxes)
    best, lead = (np.full(count, value, np.float32) for value in (-np.inf, np.inf))
    others = suppresses(boxes, boxes) & ~np.eye(count, dtype=np.bool_)
    while len(scores):
        words, first = np.arange(len(scores)), scores.argmax(axis=1)
        highest = scores[words, first]
        np.maximum.at(best, first, highest)
        beaten = others[first] & alive  # (P, Q)
        leads = np.where(beaten, highest[:, None] - scores, np.inf)
        np.minimum(lead, leads.min(axis=0), out=lead)
        alive &= ~beaten
        alive[words, first] = False
        scores[~alive] = -np.inf
        left = alive.any(axis=1)
        alive, scores = alive[left], scores[left]
    return best, lead
