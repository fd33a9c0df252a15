"""Which (query, prompt) pairs become regions.

Those do whose score reaches the prompt's threshold and which no stronger one overlaps. Prompts
never compete: thresholds, suppression and limits are per prompt, so that one more prompt changes
nothing of the others. (`ape_model.reference.official_topk` is the released evaluation,
where they do.)

The long part runs where the logits are and has sizes known beforehand: a table of the strong pairs
and of which of them stay. The table is copied to the host, which orders and cuts it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ape_cuda_ops.ops import nms_grouped
from ape_model.inference.transfer import to_host
from ape_model.network.geometry import corners

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "NMS_IOU",
    "Picked",
    "Shortlist",
    "candidate_limit",
    "pick",
    "room_on",
    "scores_of",
    "shortlist",
]

NMS_IOU = 0.7
CANDIDATES = 1_000_000
"""(query, prompt) pairs that may enter suppression; beyond it, each prompt's strongest do."""
ROOM = 4096
"""Pairs that a table on a GPU has room for at first."""


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """(query, prompt) pairs of one image on the host, strongest first."""

    boxes: Tensor
    """(K, 4) x1, y1, x2, y2."""
    scores: Tensor
    """(K,) 0..1."""
    prompts: Tensor
    """(K,) int64 columns of the logits."""
    queries: Tensor
    """(K,) int64; one query may be picked for several prompts."""


@dataclass(frozen=True, slots=True, eq=False)
class Shortlist:
    """The strong pairs of a batch, in the order of its logits; what is behind them is padding."""

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
    strong: Tensor
    """(N,) bool, at or above the threshold; False for padding."""
    stays: Tensor
    """(N,) bool, strong, and suppressed by nothing."""
    needed: Tensor
    """() int64, the least N that holds all pairs; some are missing where it is above N."""


def room_on(device: torch.device) -> int | None:
    """Rows of a first table: fixed on a GPU, whose values the host does not know; else None."""
    return ROOM if device.type == "cuda" else None


def shortlist(
    logits: Tensor, boxes: Tensor, thresholds: Tensor, *, nms: float, room: int | None
) -> Shortlist:
    """Find the strong pairs and suppress the weaker of those that overlap.

    Args:
        logits: (B, Q, P).
        boxes: (B, Q, 4) cx, cy, w, h in 0..1.
        thresholds: (P,) lowest kept score of each prompt.
        nms: IoU above which the weaker region of the same prompt falls.
        room: rows of the table, so that no value is asked for; None: as many as are needed.

    Returns:
        The table, on the device of the logits.
    """
    images, queries, prompts, real, needed = _above(logits, thresholds, room)
    scores = scores_of(logits[images, queries, prompts])
    strong = real & (scores >= thresholds.to(logits)[prompts])
    inside = corners(boxes[images, queries]).clamp(0, 1)
    columns = logits.shape[2]
    group = torch.where(strong, images * columns + prompts, -1)
    stays = nms_grouped(inside, scores.float(), group, len(logits) * columns, nms)
    return Shortlist(images, queries, prompts, scores, inside, strong, stays, needed)


def scores_of(logits: Tensor) -> Tensor:
    """Scores 0..1, in the dtype of the logits; equal logits have equal ones.

    In the plain sigmoid on a CPU the last bit depends on where in memory a logit stands.
    """
    return logits.double().sigmoid().to(logits.dtype)


def _floor(thresholds: Tensor, logits: Tensor) -> Tensor:
    """(P,) logits below which no score reaches the threshold, however scores are rounded."""
    kind = torch.finfo(logits.dtype)
    least = thresholds.double() * (1 - 2 * kind.eps) - kind.smallest_normal * kind.eps
    floor = least.clamp(0, 1 - 2**-50).logit()
    return (floor - floor.abs() * kind.eps).to(logits.dtype)


def _above(
    logits: Tensor, thresholds: Tensor, room: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Image, query, prompt of the pairs that may be strong, which are real, and how many."""
    floor = _floor(thresholds, logits)
    if room is None:
        # Most of a long vocabulary is absent. A NaN must not hide the others of its prompt.
        named = (~(logits.amax((0, 1)) < floor)).nonzero().squeeze(1)
        near = (logits[..., named] >= floor[named]).nonzero()
        near[:, 2] = named[near[:, 2]]
        scores = scores_of(logits[near.unbind(1)])
        near = near[scores >= thresholds.to(logits)[near[:, 2]]]  # in 16 bits the floor is rough
        images, queries, prompts = near.unbind(1)
        real = torch.ones_like(images, dtype=torch.bool)
        return images, queries, prompts, real, real.sum()
    _, Q, P = logits.shape
    above = (logits >= floor).flatten()
    turns = above.cumsum(0)
    rows = torch.where(above & (turns <= room), turns - 1, room)
    every = torch.arange(max(len(above), room), device=logits.device)
    found = torch.zeros(room + 1, dtype=torch.int64, device=logits.device)
    found = found.scatter(0, rows, every[: len(above)])[:room]  # what is too many goes to the end
    return found // (Q * P), found // P % Q, found % P, every[:room] < turns[-1], turns[-1]


def pick(
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    *,
    per_prompt: int,
    nms: float = NMS_IOU,
    room: int | None = None,
) -> list[list[Picked]]:
    """Pairs above their prompt's threshold, at most `per_prompt` of each prompt.

    The host waits for a GPU once, for all that is given; again only where the room is too small.

    Args:
        batches: logits (B, Q, P), boxes (B, Q, 4) as cx, cy, w, h in 0..1 and thresholds (P,),
            the lowest kept score of each prompt.
        per_prompt: most regions of one prompt, its strongest.
        nms: IoU above which the weaker region of the same prompt falls.
        room: pairs of a batch to make room for at first; None on a CPU, which sees how many.

    Returns:
        For each batch and image, picked pairs, boxes in 0..1.
    """
    tables = [shortlist(*batch, nms=nms, room=room) for batch in batches]
    on_host = _to_host(tables)
    most = max((int(table.needed) for table in on_host), default=0)
    if room is not None and most > room:
        return pick(batches, per_prompt=per_prompt, nms=nms, room=1 << (most - 1).bit_length())
    return [
        _ordered(table, len(batch[0]), per_prompt)
        for table, batch in zip(on_host, batches, strict=True)
    ]


def _to_host(tables: Sequence[Shortlist]) -> list[Shortlist]:
    names = [field.name for field in fields(Shortlist)]
    columns = iter(to_host([getattr(table, name) for table in tables for name in names]))
    return [Shortlist(**{name: next(columns) for name in names}) for _ in tables]


def _ordered(table: Shortlist, images: int, per_prompt: int) -> list[Picked]:
    """What stays of every image, strongest first, within the limits."""
    rows = table.strong.nonzero().squeeze(1)
    rows = rows[table.scores[rows].argsort(descending=True, stable=True)]
    found = []
    for image in range(images):
        own = rows[table.images[rows] == image]
        named = table.prompts[own].unique()
        own = _strongest(table, own, candidate_limit(per_prompt, len(named)))
        own = own[table.stays[own]]  # what did not enter is weaker: it has struck nothing else
        own = _strongest(table, own, per_prompt)
        columns = (table.boxes, table.scores, table.prompts, table.queries)
        found.append(Picked(*(column[own] for column in columns)))
    return found


def _strongest(table: Shortlist, rows: Tensor, limit: int) -> Tensor:
    """Of (N,) rows, strongest first, the first `limit` of every prompt."""
    if len(rows) <= limit:
        return rows
    prompts = table.prompts[rows]
    order = prompts.argsort(stable=True)
    grouped = prompts[order]
    turns = torch.arange(len(order)) - torch.searchsorted(grouped, grouped)
    return rows[torch.empty_like(turns).scatter(0, order, turns) < limit]


def candidate_limit(per_prompt: int, named: int) -> int:
    """How many pairs of one prompt may enter suppression where `named` prompts have some."""
    return max(per_prompt, CANDIDATES // max(1, named))
