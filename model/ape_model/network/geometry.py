"""Positions of tokens, anchors and padding: pure functions of sizes, all in float32.

Level l of a pyramid has H_l x W_l tokens; all levels lie one after another, finest first, each
row-major, N tokens in all. Padding is at the right and the bottom of the canvas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Coordinates",
    "Geometry",
    "ImageCoordinates",
    "Levels",
    "batch_geometry",
    "box_position",
    "resize_mask",
    "sine_position",
]

TEMPERATURE = 10_000.0
SINE_OFFSET = -0.5
SINE_EPS = 1e-6
"""Of the sine embedding of positions: the values of Deformable DETR."""
ANCHOR_MARGIN = 0.01
"""No proposal has a coordinate nearer to 0 or 1 than this (Deformable DETR, two-stage)."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The token grid of every level."""

    shapes: tuple[tuple[int, int], ...]
    """Rows and columns, finest level first."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens of every level."""
        return tuple(rows * cols for rows, cols in self.shapes)

    @property
    def starts(self) -> tuple[int, ...]:
        """Index of every level's first token."""
        return tuple(accumulate(self.counts, initial=0))[:-1]

    @property
    def total(self) -> int:
        """N, tokens of all levels."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """All that follows from the sizes of the images of a batch."""

    levels: Levels
    """The token grids."""
    padded: Tensor
    """(B, N) bool, True where a token lies in the padding."""
    any_padded: bool
    """Whether one does, known to the host: `padded` may be on a GPU."""
    valid_ratios: Tensor
    """(B, L, 2) float32, the share of valid columns and rows, 0..1, as (x, y)."""
    position: Tensor
    """(B, N, C) float32 sine embedding of the tokens' positions, without the level embedding."""
    reference: Tensor
    """(B, N, L, 2) float64, every token's own position on every level, as (x, y) over the
    level's width and height."""
    anchors: Tensor
    """(B, N, 4) float, logits of cx, cy, w, h of every token's anchor; +inf where `invalid`."""
    invalid: Tensor
    """(B, N) bool, True where a token can make no proposal: padded, or anchor over the border."""

    def zero_padding(self, tokens: Tensor) -> Tensor:
        """(B, N, C) tokens, zero where padded; the same tensor where nothing is."""
        return tokens.masked_fill(self.padded[..., None], 0.0) if self.any_padded else tokens


def _frequencies(features: int, device: torch.device) -> Tensor:
    """(features,) float32 for angles of any dtype, as in the official code."""
    index = torch.arange(features, dtype=torch.float32, device=device)
    # `index // 2`: a sine and a cosine share each frequency.
    return TEMPERATURE ** (2 * (index // 2) / features)


def _sine(angle: Tensor, features: int) -> Tensor:
    """(...) angles to (..., features): sines and cosines interleaved."""
    scaled = angle[..., None] / _frequencies(features, angle.device)
    pairs = torch.stack([scaled[..., 0::2].sin(), scaled[..., 1::2].cos()], dim=-1)
    return pairs.flatten(-2)


def sine_position(padded: Tensor, channels: int) -> Tensor:
    """Embed the position of every cell within the valid part of its map.

    Args:
        padded: (B, H, W) bool, True for padding.
        channels: C, a multiple of 4; the first half is for rows, the second for columns.

    Returns:
        (B, H, W, C) float32.
    """
    valid = (~padded).float()
    halves = []
    for axis in (1, 2):
        # Valid cells so far, so positions count from the image, not from the padded canvas.
        count = valid.cumsum(axis)  # (B, H, W)
        last = count.narrow(axis, count.shape[axis] - 1, 1)
        angle = (count + SINE_OFFSET) / (last + SINE_EPS) * (2 * math.pi)  # (B, H, W)
        halves.append(_sine(angle, channels // 2))  # (B, H, W, C / 2)
    return torch.cat(halves, dim=-1)


def box_position(boxes: Tensor, channels: int) -> Tensor:
    """Embed (B, Q, 4) boxes of cx, cy, w, h in 0..1 as (B, Q, channels), a quarter for each."""
    return _sine(boxes * (2 * math.pi), channels // 4).flatten(-2)


def _pad_mask(sizes: tuple[tuple[int, int], ...], canvas: tuple[int, int]) -> Tensor:
    """(B, H, W) bool, True outside each image of `sizes` (rows, columns)."""
    mask = torch.ones(len(sizes), *canvas, dtype=torch.bool)
    for image, (rows, cols) in zip(mask, sizes, strict=True):
        image[:rows, :cols] = False
    return mask


def resize_mask(mask: Tensor, shape: tuple[int, int]) -> Tensor:
    """(B, H, W) bool to (B, *shape) bool by nearest neighbour (source = floor(target * scale))."""
    return F.interpolate(mask[None].float(), size=shape)[0].bool()


def _valid_share(padded: Tensor) -> Tensor:
    """(B, H, W) bool to (B, 2) shares of valid columns and rows, as (x, y)."""
    # Padding is right and bottom: the first row and column count all that is valid.
    rows, cols = padded.shape[1:]
    return torch.stack([(~padded[:, 0]).sum(1) / cols, (~padded[:, :, 0]).sum(1) / rows], dim=-1)


def _centers(shape: tuple[int, int]) -> Tensor:
    """(H * W, 2) float32 centres (x, y) of cells, in cells."""
    rows, cols = shape
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(cols) + 0.5, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def _reference(levels: Levels, valid_ratios: Tensor) -> Tensor:
    """(B, N, L, 2) float64 position of every token on every level."""
    # First as a share of the image, then by each level's ratio as a share of that level.
    positions = []
    for level, (rows, cols) in enumerate(levels.shapes):
        valid = valid_ratios[:, level].double() * torch.tensor([cols, rows])  # (B, 2)
        positions.append(_centers((rows, cols)) / valid[:, None])  # (B, N_l, 2)
    return torch.cat(positions, dim=1)[:, :, None] * valid_ratios[:, None].double()


def _anchors(levels: Levels, masks: list[Tensor], anchor_size: float) -> tuple[Tensor, Tensor]:
    """Logits of all anchors, (B, N, 4), and which are unusable, (B, N)."""
    boxes = []
    for level, (shape, mask) in enumerate(zip(levels.shapes, masks, strict=True)):
        valid = torch.stack([(~mask[:, 0]).sum(1), (~mask[:, :, 0]).sum(1)], dim=-1)  # (B, 2)
        center = _centers(shape) / valid[:, None]  # (B, N_l, 2)
        # Every level looks for things twice as large as the one before it.
        boxes.append(torch.cat([center, torch.full_like(center, anchor_size * 2**level)], dim=-1))
    anchors = torch.cat(boxes, dim=1)
    inside = ((anchors > ANCHOR_MARGIN) & (anchors < 1 - ANCHOR_MARGIN)).all(-1)
    invalid = torch.cat([mask.flatten(1) for mask in masks], dim=1) | ~inside
    # In float64: the logit of a share near 0 or 1 magnifies rounding.
    exact = anchors.double()
    logits = torch.log(exact / (1 - exact))
    return logits.masked_fill(invalid[..., None], math.inf), invalid


@lru_cache(maxsize=2)
def batch_geometry(
    levels: Levels,
    sizes: tuple[tuple[int, int], ...],
    canvas: tuple[int, int],
    channels: int,
    anchor_size: float,
    device: torch.device,
) -> Geometry:
    """Geometry of a batch; cached, because the frames of a stream are all of one size.

    Args:
        levels: Token grids of the padded images.
        sizes: Height and width in pixels of each image inside the canvas.
        canvas: Height and width in pixels of the padded images.
        channels: C of the position embedding.
        anchor_size: Side of the finest level's anchors over the image's side.
        device: Of the tensors.
    """
    # A tensor made in inference mode could never be used in training later.
    with torch.inference_mode(mode=False), torch.no_grad():
        pixels = _pad_mask(sizes, canvas)
        masks = [resize_mask(pixels, shape) for shape in levels.shapes]
        valid_ratios = torch.stack([_valid_share(mask) for mask in masks], dim=1)
        anchors, invalid = _anchors(levels, masks, anchor_size)
        position = [sine_position(mask, channels).flatten(1, 2) for mask in masks]
        padded = torch.cat([mask.flatten(1) for mask in masks], dim=1)
        return Geometry(
            levels=levels,
            padded=padded.to(device),
            any_padded=bool(padded.any()),
            valid_ratios=valid_ratios.to(device),
            position=torch.cat(position, dim=1).to(device),
            reference=_reference(levels, valid_ratios).to(device),
            anchors=anchors.to(device),
            invalid=invalid.to(device),
        )


class Coordinates(Protocol):
    """The unit in which a network counts positions and boxes."""

    def geometry(
        self,
        levels: Levels,
        sizes: tuple[tuple[int, int], ...],
        canvas: tuple[int, int],
        device: torch.device,
    ) -> Geometry:
        """Geometry of a batch in this unit; arguments as in `batch_geometry`."""

    def to_shares(
        self, boxes: Tensor, sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]
    ) -> Tensor:
        """(..., B, Q, 4) boxes in this unit to shares of each image's width and height."""

    def from_shares(
        self, boxes: Tensor, sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]
    ) -> Tensor:
        """Undo `to_shares`."""


@dataclass(frozen=True, slots=True)
class ImageCoordinates:
    """The unit of the released models: the width and the height of the image."""

    channels: int
    """C of the position embedding."""
    anchor_size: float
    """Side of the finest level's anchors over the image's side."""

    def geometry(
        self,
        levels: Levels,
        sizes: tuple[tuple[int, int], ...],
        canvas: tuple[int, int],
        device: torch.device,
    ) -> Geometry:
        """Geometry of a batch; arguments as in `batch_geometry`."""
        return batch_geometry(levels, sizes, canvas, self.channels, self.anchor_size, device)

    def to_shares(
        self,
        boxes: Tensor,
        sizes: Sequence[tuple[int, int]],  # noqa: ARG002
        canvas: tuple[int, int],  # noqa: ARG002
    ) -> Tensor:
        """Boxes as they are."""
        return boxes

    from_shares = to_shares
