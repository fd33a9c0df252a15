"""Which (query, prompt) pairs become regions: threshold, non-maximum suppression, limits.

Prompts never compete: thresholds, suppression and limits are per prompt, so one more prompt changes
nothing for the others. (`ape_model.reference.official_topk` is the released evaluation, where they
do.)

Filtering and NMS run on the logits' device with static shapes (capturable); only the table of
candidates goes to the host, which sorts and cuts it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ape_cuda_ops.ops import nms_grouped
from ape_model.inference.transfer import to_host
from ape_model.network.boxes import corners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.network.align import ExactAlignment

__all__ = [
    "NMS_IOU",
    "CandidateTable",
    "HeadBatch",
    "Selected",
    "candidate_limit",
    "initial_capacity",
    "scores_of",
    "select",
    "threshold_and_nms",
]

NMS_IOU = 0.7
"""IoU above which the weaker of two regions of a prompt is dropped (the official value)."""
CANDIDATES = 1_000_000
"""(query, prompt) pairs that may enter suppression; beyond it, each prompt's strongest do."""
INITIAL_CAPACITY = 4096
"""Rows of the first table on a GPU."""


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """(query, prompt) pairs of one image on the host, strongest first."""

    boxes: Tensor
    """(K, 4) x1, y1, x2, y2."""
    scores: Tensor
    """(K,) 0..1."""
    prompts: Tensor
    """(K,) int64 columns of the logits."""
    queries: Tensor
    """(K,) int64; one query may be selected for several prompts."""


@dataclass(frozen=True, slots=True, eq=False)
class CandidateTable:
    """Candidate pairs of a batch in the order of its logits; rows after them are padding."""

    images: Tensor
    """(N,) int64."""
    queries: Tensor
    """(N,) int64."""
    prompts: Tensor
    """(N,) int64 columns of the logits."""
    scores: Tensor
    """(N,) 0..1."""
    boxes: Tensor
    """(N, 4) x1, y1, x2, y2 in 0..1."""
    above: Tensor
    """(N,) bool, at or above the threshold; False for padding."""
    keep: Tensor
    """(N,) bool, above the threshold and not suppressed."""
    count: Tensor
    """() int64, how many candidates there are; above N, some are missing."""


def initial_capacity(device: torch.device) -> int | None:
    """Rows of the first table: fixed on a GPU, whose values the host does not know; else None."""
    return INITIAL_CAPACITY if device.type == "cuda" else None


def threshold_and_nms(
    logits: Tensor,
    boxes: Tensor,
    thresholds: Tensor,
    exact: ExactAlignment | None = None,
    *,
    nms: float,
    capacity: int | None,
) -> CandidateTable:
    """Find the pairs above their threshold and suppress the weaker of those that overlap.

    Args:
        logits: (B, Q, P).
        boxes: (B, Q, 4) cx, cy, w, h in 0..1.
        thresholds: (P,) lowest kept score of each prompt.
        exact: Scores the pairs in place of the logits, which are near its own.
        nms: IoU above which the weaker region of the same prompt is dropped.
        capacity: Rows of the table, so that no value is read; None: as many as there are pairs.

    Returns:
        The table, on the device of the logits.
    """
    floor = _logit_floor(thresholds, logits)
    if exact is not None:  # the logits alone do not say on which side of it a pair is
        floor = floor - exact.error()
    if capacity is None:
        (images, queries, prompts), real, count = _all_candidates(logits, floor)
    else:
        (images, queries, prompts), real, count = _padded_candidates(logits, floor, capacity)
    # From here on rows are pairs, not queries: one query may be in several.
    pairs = (images, queries, prompts)
    scores = scores_of(logits[pairs] if exact is None else exact.logits(*pairs))  # (N,)
    above = real & (scores >= thresholds.to(scores)[prompts])
    if capacity is None:  # the floor is rough
        images, queries, prompts, scores = (c[above] for c in (*pairs, scores))
        above = above[above]
        count = above.sum()
    rectangles = corners(boxes[images, queries]).clamp(0, 1)  # (N, 4)
    P = logits.shape[2]
    group = torch.where(above, images * P + prompts, -1)  # one image and prompt; -1: no candidate
    keep = nms_grouped(rectangles, scores.float(), group, len(logits) * P, nms)
    return CandidateTable(images, queries, prompts, scores, rectangles, above, keep, count)


def scores_of(logits: Tensor) -> Tensor:
    """Scores 0..1, in the dtype of the logits; equal logits have equal ones.

    On a CPU the last bit of a plain float32 sigmoid depends on the position in memory (vectorised
    body or scalar rest of a loop).
    """
    return logits.double().sigmoid().to(logits.dtype)


def _logit_floor(thresholds: Tensor, logits: Tensor) -> Tensor:
    """(P,) logits below which no score reaches the threshold, however scores are rounded."""
    # Two roundings are allowed for: that of the score, relative near 1 and absolute near 0 ...
    kind = torch.finfo(logits.dtype)
    least = thresholds.double() * (1 - 2 * kind.eps) - kind.smallest_normal * kind.eps
    floor = least.clamp(0, 1 - 2**-50).logit()  # (P,) float64, finite for a threshold of 1
    # ... and that of the logit itself.
    return (floor - floor.abs() * kind.eps).to(logits.dtype)


Candidates = tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]
"""(N,) image, query and prompt of each pair, (N,) bool: no padding, () int64: count of pairs."""


def _all_candidates(logits: Tensor, floor: Tensor) -> Candidates:
    """All pairs that may reach their threshold, as many rows as there are."""
    # Most of a long vocabulary is absent: drop whole columns first. `~(<)` keeps those with a NaN.
    present = (~(logits.amax((0, 1)) < floor)).nonzero().squeeze(1)
    near = (logits[..., present] >= floor[present]).nonzero()  # (N, 3)
    near[:, 2] = present[near[:, 2]]
    images, queries, prompts = near.unbind(1)
    real = torch.ones_like(images, dtype=torch.bool)
    return (images, queries, prompts), real, real.sum()


def _padded_candidates(logits: Tensor, floor: Tensor, capacity: int) -> Candidates:
    """The first `capacity` pairs that may reach their threshold, without reading a value."""
    _, Q, P = logits.shape
    near = (logits >= floor).flatten()  # (B * Q * P,)
    rank = near.cumsum(0)  # from 1, of every pair among the near ones
    # Scatter pair numbers to their rows; all others go to one more row, which is cut off.
    rows = torch.where(near & (rank <= capacity), rank - 1, capacity)
    numbers = torch.arange(max(len(near), capacity), device=logits.device)
    found = torch.zeros(capacity + 1, dtype=torch.int64, device=logits.device)
    found = found.scatter(0, rows, numbers[: len(near)])[:capacity]
    real = numbers[:capacity] < rank[-1]
    # A pair number is (image * Q + query) * P + prompt.
    return (found // (Q * P), found // P % Q, found % P), real, rank[-1]


HeadBatch = tuple[Tensor, Tensor, Tensor] | tuple[Tensor, Tensor, Tensor, "ExactAlignment | None"]
"""Logits, boxes and thresholds of a batch, and what scores its pairs."""


def select(
    batches: Sequence[HeadBatch],
    *,
    per_prompt: int,
    nms: float = NMS_IOU,
    capacity: int | None = None,
) -> list[list[Selected]]:
    """Pairs above their prompt's threshold, at most `per_prompt` of each prompt.

    The host waits for a GPU once, for all batches; again only where the capacity was too small.

    Args:
        batches: Logits (B, Q, P), boxes (B, Q, 4) as cx, cy, w, h in 0..1, thresholds (P,), the
            lowest kept score of each prompt, and what scores the pairs, if not the logits; see
            `threshold_and_nms`.
        per_prompt: Most regions of one prompt, its strongest.
        nms: IoU above which the weaker region of the same prompt is dropped.
        capacity: Rows of a first table; None on a CPU, which sees how many pairs there are.

    Returns:
        For each batch and image, selected pairs, boxes in 0..1.
    """
    tables = [threshold_and_nms(*batch, nms=nms, capacity=capacity) for batch in batches]
    on_host = _to_host(tables)
    most = max((int(table.count) for table in on_host), default=0)
    if capacity is not None and most > capacity:
        larger = 1 << (most - 1).bit_length()  # the next power of two: few sizes are ever used
        return select(batches, per_prompt=per_prompt, nms=nms, capacity=larger)
    return [
        _ordered(table, len(batch[0]), per_prompt)
        for table, batch in zip(on_host, batches, strict=True)
    ]


def _to_host(tables: Sequence[CandidateTable]) -> list[CandidateTable]:
    # All columns of all tables as one flat list: one wait for everything.
    names = [field.name for field in fields(CandidateTable)]
    columns = iter(to_host([getattr(table, name) for table in tables for name in names]))
    return [CandidateTable(**{name: next(columns) for name in names}) for _ in tables]


def _ordered(table: CandidateTable, images: int, per_prompt: int) -> list[Selected]:
    """Kept pairs of every image, strongest first, within the limits."""
    rows = table.above.nonzero().squeeze(1)
    rows = rows[table.scores[rows].argsort(descending=True, stable=True)]
    found = []
    for image in range(images):
        own = rows[table.images[rows] == image]
        # The budget of candidates is shared by the prompts that have some in this image.
        present = table.prompts[own].unique()
        own = _strongest(table, own, candidate_limit(per_prompt, len(present)))
        own = own[table.keep[own]]  # what is beyond the limit is weaker: it suppressed nothing here
        own = _strongest(table, own, per_prompt)
        columns = (table.boxes, table.scores, table.prompts, table.queries)
        found.append(Selected(*(column[own] for column in columns)))
    return found


def _strongest(table: CandidateTable, rows: Tensor, limit: int) -> Tensor:
    """Of (N,) rows, strongest first, the first `limit` of every prompt."""
    if len(rows) <= limit:
        return rows
    prompts = table.prompts[rows]
    order = prompts.argsort(stable=True)  # prompt by prompt, each still strongest first
    grouped = prompts[order]
    # `searchsorted` finds where each prompt begins: position minus that is the rank in it.
    ranks = torch.arange(len(order)) - torch.searchsorted(grouped, grouped)
    return rows[torch.empty_like(ranks).scatter(0, order, ranks) < limit]


def candidate_limit(per_prompt: int, present: int) -> int:
    """How many pairs of one prompt may enter suppression where `present` prompts have some."""
    return max(per_prompt, CANDIDATES // max(1, present))
