"""One training batch: images and the regions in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ape_model.config import NanoConfig
from ape_model.inference.preprocess import normalise, padded_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_model.config import ApeConfig

__all__ = ["MASK_STRIDE", "Batch", "Example", "collate", "pad_rows", "stack_images"]

MASK_STRIDE = 4
"""Pixels per cell of a mask, as in the network's mask feature."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One image with its regions."""

    image: NDArray[np.uint8]
    """(H, W, 3) blue-green-red; the images of a batch may differ in size."""
    ids: NDArray[np.int32]
    """(H, W): 1 + row of the region that shows at each pixel, 0 for none."""
    boxes: NDArray[np.float32]
    """(G, 4) x1, y1, x2, y2, pixels."""
    classes: NDArray[np.int64]
    """(G,) class ids."""
    sentences: tuple[tuple[str, int], ...] = ()
    """Descriptions and the row of a region that each means; empty for a vocabulary step."""
    masked: NDArray[np.bool_] | None = None
    """(G,): whether `ids` is a mask and not only a box; None for masks throughout."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Examples, padded to the largest number of regions."""

    images: Tensor
    """(B, 3, H, W) float32 normalised RGB; zero in the padding, at the right and the bottom."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width in pixels of each image inside the canvas."""
    unit: int
    """Pixels that coordinate 1.0 stands for; 0 where it is the side of each image."""
    boxes: Tensor
    """(B, G, 4) cx, cy, w, h in coordinate units."""
    classes: Tensor
    """(B, G) int64; 0 in padding."""
    valid: Tensor
    """(B, G) bool, False for padding."""
    masks: Tensor
    """(B, G, H / 4, W / 4) float32, the share of each cell that the region shows in, 0..1."""
    masked: Tensor
    """(B, G) bool, whether a mask can be learnt from this region."""
    sentences: tuple[tuple[tuple[str, int], ...], ...]
    """Of each image; all empty in a vocabulary step."""
    dataset: int = 0
    """Position of the data set that it comes from among those of the run."""
    key: str = ""
    """Name of its images and how they lie on the canvas, where features are kept by it."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return replace(
            self,
            images=self.images.to(device),
            boxes=self.boxes.to(device),
            classes=self.classes.to(device),
            valid=self.valid.to(device),
            masks=self.masks.to(device),
            masked=self.masked.to(device),
        )


def pad_rows(rows: Sequence[NDArray[np.generic]], length: int) -> Tensor:
    """B arrays (G_b, ...) as one (B, length, ...) tensor, zero behind each."""
    out = np.zeros((len(rows), length, *rows[0].shape[1:]), rows[0].dtype)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(out)


def _masks(ids: Tensor, regions: int) -> Tensor:
    """(B, H, W) ids to (B, G, H / 4, W / 4) shares."""
    member = ids[:, None] == torch.arange(1, regions + 1)[:, None, None]  # (B, G, H, W)
    return functional.avg_pool2d(member.float(), MASK_STRIDE)


def stack_images(pixels: Sequence[NDArray[np.uint8]], config: ApeConfig) -> Tensor:
    """Normalise images and pad them to one canvas, as `preprocess.make_batch` does with frames.

    Args:
        pixels: (H, W, 3) blue-green-red each.
        config: Of the network that will see them.

    Returns:
        (B, 3, H, W) float32 normalised RGB.
    """
    canvas = padded_size([one.shape[:2] for one in pixels], config)
    images = torch.zeros(len(pixels), 3, *canvas)
    for one, image in zip(pixels, images, strict=True):
        height, width = one.shape[:2]
        rgb = torch.from_numpy(one[..., ::-1].copy()).permute(2, 0, 1).float()
        image[:, :height, :width] = normalise(rgb, config)
    return images


def _stack_ids(examples: Sequence[Example], canvas: Sequence[int]) -> Tensor:
    """(B, H, W) int32 ids, zero in the padding."""
    ids = torch.zeros(len(examples), *canvas, dtype=torch.int32)
    for example, mask in zip(examples, ids, strict=True):
        height, width = example.ids.shape
        mask[:height, :width] = torch.from_numpy(example.ids)
    return ids


def _units(
    examples: Sequence[Example], config: NanoConfig | ApeConfig, canvas: tuple[int, int]
) -> tuple[int, Tensor]:
    """Pixels of coordinate 1.0, 0 if images differ in it, and (B, 1, 4) of each image's x, y."""
    if isinstance(config, NanoConfig):
        unit = config.unit_on(canvas)
        return unit, torch.full((len(examples), 1, 4), float(unit))
    sides = [(e.image.shape[1], e.image.shape[0]) * 2 for e in examples]
    return 0, torch.tensor(sides, dtype=torch.float32)[:, None]


def collate(examples: Sequence[Example], config: NanoConfig | ApeConfig) -> Batch:
    """Stack examples, padded to one canvas.

    Args:
        examples: B images, at least one.
        config: Of the network that will see them; a released model's counts in sides of the image.
    """
    longest = max(1, *(len(e.classes) for e in examples))  # G: losses need at least one column
    ape = config.ape if isinstance(config, NanoConfig) else config
    pixels = stack_images([e.image for e in examples], ape)
    ids = _stack_ids(examples, pixels.shape[2:])
    unit, sides = _units(examples, config, (pixels.shape[2], pixels.shape[3]))
    rectangles = pad_rows([e.boxes for e in examples], longest) / sides  # (B, G, 4) x1, y1, x2, y2
    low, high = rectangles.chunk(2, dim=-1)  # (B, G, 2) each: x, y of two corners
    counts = torch.tensor([len(e.classes) for e in examples])  # (B,)
    masked = [np.ones(len(e.classes), np.bool_) if e.masked is None else e.masked for e in examples]
    return Batch(
        images=pixels,
        sizes=tuple((e.image.shape[0], e.image.shape[1]) for e in examples),
        unit=unit,
        boxes=torch.cat([(low + high) / 2, high - low], dim=-1),
        classes=pad_rows([e.classes for e in examples], longest),
        valid=torch.arange(longest) < counts[:, None],
        masks=_masks(ids, longest),
        masked=pad_rows(masked, longest),
        sentences=tuple(e.sentences for e in examples),
    )
