"""Candidates of one frame, and which of them become regions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from ape_stream.types import Instances

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ape_stream.types import Mask

__all__ = ["NEVER", "Candidates", "confident", "corners", "strongest"]

NEVER = -1.0
"""Score of a box for a prompt that it cannot belong to."""
MOST_PAIRS = 10_000
"""Pairs of a frame that are searched for duplicates, strongest first."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Q boxes of one frame, each with a score for P prompts."""

    boxes: Tensor
    """(Q, 4) float32 on the CPU: x1 y1 x2 y2 in pixels of the frame; may reach beyond it."""
    scores: Tensor
    """(Q, P) float32 on the CPU, 0..1 or `NEVER`."""
    prompt_ids: Tensor
    """(P,) int64: positions of these prompts in the prompt set."""
    masks: Callable[[list[int]], tuple[Mask, ...]] | None = None
    """Makes the masks of boxes at these positions; None from a detector of boxes only."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """N pairs of a box and a prompt, out of several `Candidates`."""

    boxes: NDArray[np.float32]
    """(N, 4)."""
    scores: NDArray[np.float32]
    """(N,)."""
    prompt_ids: NDArray[np.int64]
    """(N,)."""
    parts: NDArray[np.int64]
    """(N,) which `Candidates`."""
    rows: NDArray[np.int64]
    """(N,) which of its boxes."""

    def select(self, chosen: NDArray[np.intp]) -> _Pairs:
        """The pairs at these positions."""
        return _Pairs(*(getattr(self, name)[chosen] for name in self.__slots__))


def corners(boxes: Tensor) -> Tensor:
    """(Q, 4) x1 y1 x2 y2 of (Q, 4) centre x, centre y, width, height."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1)


def strongest(found: Sequence[Candidates], size: tuple[int, int], top_k: int) -> Instances:
    """The `top_k` best pairs of a frame of (height, width); see `RanksRegions`."""
    # The best of each part are enough: all pairs of OWLv2 and LVIS are 4 million.
    pairs = _join([_best(part, number, top_k) for number, part in enumerate(found)])
    return _instances(found, pairs.select(_by_score(pairs)[:top_k]), size)


def confident(
    found: Sequence[Candidates],
    size: tuple[int, int],
    thresholds: Tensor,
    *,
    nms: float,
    per_prompt: int,
) -> Instances:
    """The pairs above their thresholds, without duplicates, inside a frame of (height, width).

    Args:
        found: At least one.
        size: Height and width of the frame.
        thresholds: (P,) lowest score kept of each prompt of the set.
        nms: Of two boxes of one prompt with a greater IoU, the weaker one is dropped.
        per_prompt: Most regions of a prompt.
    """
    parts = [_above(part, number, thresholds) for number, part in enumerate(found)]
    pairs = _inside(_join(parts), size)
    pairs = pairs.select(_by_score(pairs)[:MOST_PAIRS])
    pairs = pairs.select(_without_duplicates(pairs, nms))
    return _instances(found, pairs.select(_first_of_each(pairs.prompt_ids, per_prompt)), size)


def _best(part: Candidates, number: int, top_k: int) -> _Pairs:
    flat = part.scores.flatten()
    values, index = flat.topk(min(top_k, len(flat)))
    index = index[values >= 0]
    prompts = max(1, part.scores.shape[1])
    return _take(part, number, index // prompts, index % prompts)


def _above(part: Candidates, number: int, thresholds: Tensor) -> _Pairs:
    limits = thresholds[part.prompt_ids].clamp(min=0)
    rows, columns = torch.nonzero(part.scores >= limits, as_tuple=True)
    return _take(part, number, rows, columns)


def _take(part: Candidates, number: int, rows: Tensor, columns: Tensor) -> _Pairs:
    return _Pairs(
        boxes=part.boxes[rows].numpy(),
        scores=part.scores[rows, columns].numpy(),
        prompt_ids=part.prompt_ids[columns].numpy(),
        parts=np.full(len(rows), number, np.int64),
        rows=rows.numpy(),
    )


def _join(parts: Sequence[_Pairs]) -> _Pairs:
    columns = zip(*([getattr(p, name) for name in _Pairs.__slots__] for p in parts), strict=True)
    return _Pairs(*map(np.concatenate, columns))


def _by_score(pairs: _Pairs) -> NDArray[np.intp]:
    return np.argsort(-pairs.scores, kind="stable")


def _inside(pairs: _Pairs, size: tuple[int, int]) -> _Pairs:
    """The pairs with boxes cut to the frame, without those outside."""
    height, width = size
    boxes = pairs.boxes.clip(0, np.array([width, height, width, height], np.float32))
    cut = replace(pairs, boxes=boxes)
    return cut.select(np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(1)))


def _without_duplicates(pairs: _Pairs, nms: float) -> NDArray[np.intp]:
    """Positions that are kept, strongest first."""
    if not len(pairs.scores):
        return np.zeros(0, np.intp)
    xywh = np.concatenate([pairs.boxes[:, :2], pairs.boxes[:, 2:] - pairs.boxes[:, :2]], 1)
    kept = cv2.dnn.NMSBoxesBatched(
        xywh.tolist(), pairs.scores.tolist(), pairs.prompt_ids.tolist(), NEVER, nms
    )
    return np.sort(np.asarray(kept, np.intp))  # as they came: by score


def _first_of_each(prompt_ids: NDArray[np.int64], count: int) -> NDArray[np.intp]:
    """The first `count` positions of each prompt, in their order."""
    kept = [np.flatnonzero(prompt_ids == one)[:count] for one in np.unique(prompt_ids)]
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.intp)


def _instances(found: Sequence[Candidates], pairs: _Pairs, size: tuple[int, int]) -> Instances:
    return Instances(
        boxes=pairs.boxes,
        scores=pairs.scores,
        prompt_ids=pairs.prompt_ids,
        masks=_masks(found, pairs),
        size=size,
    )


def _masks(found: Sequence[Candidates], pairs: _Pairs) -> tuple[Mask, ...] | None:
    masks: dict[int, Mask] = {}
    for number, part in enumerate(found):
        if part.masks is None:
            return None
        own = np.flatnonzero(pairs.parts == number)
        masks |= zip(own.tolist(), part.masks(pairs.rows[own].tolist()), strict=True)
    return tuple(masks[k] for k in range(len(pairs.rows)))
