"""Training pictures of the drawn world, as batches with padded truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.config import ApeConfig
    from ape_model.world import Scene, World

__all__ = ["MASK_STRIDE", "Batch", "Sampler"]

MASK_STRIDE = 4
"""Pixels per cell of the mask feature."""
OWN_PHRASES, FOREIGN_PHRASES = 3, 3
"""Sentences per picture that are about it, and that are about other pictures of the batch."""
PICTURE_SIZES = ((128, 128), (128, 128), (96, 160), (160, 96), (64, 256), (256, 64))
"""Heights and widths of about as many pixels; together they reach every coordinate of a unit."""
SENTENCE_SIZES = ((128, 128), (96, 160), (160, 96))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B pictures of one size with up to G regions each."""

    images: Tensor
    """(B, 3, H, W) float32, normalised RGB."""
    boxes: Tensor
    """(B, G, 4) float32, x1 y1 x2 y2 in pixels."""
    classes: Tensor
    """(B, G) int64."""
    valid: Tensor
    """(B, G) bool, False for padding."""
    masks: Tensor
    """(B, G, H / 4, W / 4) bool, the truth at the middle of each cell of the mask feature."""
    texts: tuple[tuple[str, ...], ...] = ()
    """Per picture T sentences; empty for a batch of names."""
    meant: Tensor | None = None
    """(B, T) int64, which region each sentence means; -1 for none here."""


class Sampler:
    """Draws batch `step` of a training run; the same seed and step give the same batch.

    Args:
        world: the drawn world.
        config: of the network, for its pixel statistics.
        batch: pictures per step at 128 x 128 pixels; larger pictures come in smaller batches.
        scale: factor on the picture sizes.
        seed: of the run.
    """

    def __init__(
        self, world: World, config: ApeConfig, *, batch: int, scale: float, seed: int
    ) -> None:
        self.world, self.batch, self.scale, self.seed = world, batch, scale, seed
        self.mean = torch.tensor(config.pixel_mean)[:, None, None]
        self.std = torch.tensor(config.pixel_std)[:, None, None]

    def _size(self, rng: np.random.Generator, menu: Sequence[tuple[int, int]]) -> tuple[int, int]:
        rows, cols = menu[int(rng.integers(len(menu)))]
        return tuple(min(256, int(side * self.scale) // 32 * 32) for side in (rows, cols))  # type: ignore[return-value]

    def names(self, step: int) -> Batch:
        """Pictures of random things on random stuffs."""
        rng = np.random.default_rng((self.seed, step))
        size = self._size(rng, PICTURE_SIZES)
        seeds = rng.integers(2**31, 2**32, self.batch)
        return self._collate([self.world.scene(int(seed), size) for seed in seeds])

    def sentences(self, step: int) -> Batch:
        """Pictures with several of one noun, and sentences that tell them apart."""
        rng = np.random.default_rng((self.seed, step))
        size = self._size(rng, SENTENCE_SIZES)
        seeds = rng.integers(2**31, 2**32, self.batch)
        told = [self.world.sentence_scene(int(seed), size) for seed in seeds]
        texts, meant = [], []
        for index, sentence in enumerate(told):
            own = rng.choice(len(sentence.phrases), OWN_PHRASES)
            others = rng.choice([k for k in range(len(told)) if k != index], FOREIGN_PHRASES)
            foreign = [told[k].phrases[int(rng.integers(len(told[k].phrases)))] for k in others]
            ids = [instance.id for instance in sentence.scene.instances]
            phrases = [sentence.phrases[int(k)] for k in own]
            texts.append(tuple(p.text for p in (*phrases, *foreign)))
            meant.append([ids.index(p.target) for p in phrases] + [-1] * FOREIGN_PHRASES)
        plain = self._collate([sentence.scene for sentence in told])
        return Batch(
            plain.images,
            plain.boxes,
            plain.classes,
            plain.valid,
            plain.masks,
            tuple(texts),
            torch.tensor(meant),
        )

    def _collate(self, scenes: Sequence[Scene]) -> Batch:
        pixels = np.stack([scene.image[..., ::-1] for scene in scenes]).transpose(0, 3, 1, 2)
        images = (torch.from_numpy(np.ascontiguousarray(pixels)).float() - self.mean) / self.std
        G = max(1, *(len(scene.instances) for scene in scenes))
        boxes = torch.zeros(len(scenes), G, 4)
        classes = torch.zeros(len(scenes), G, dtype=torch.int64)
        ids = torch.full((len(scenes), G), -1, dtype=torch.int32)
        for index, scene in enumerate(scenes):
            for k, instance in enumerate(scene.instances):
                boxes[index, k] = torch.tensor(instance.box, dtype=torch.float32)
                classes[index, k] = instance.class_id
                ids[index, k] = instance.id
        half = MASK_STRIDE // 2
        maps = np.stack([s.instance_map[half::MASK_STRIDE, half::MASK_STRIDE] for s in scenes])
        masks = torch.from_numpy(maps)[:, None] == ids[:, :, None, None]
        return Batch(images, boxes, classes, ids >= 0, masks)
