"""Frames in, Instances out: where the network meets the stream.

The only file here that imports `ape_stream`.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from ape_model.build import build_network
from ape_model.detect import keep_regions
from ape_model.errors import ModelError as NetworkError
from ape_model.errors import PromptTextError
from ape_model.loading import open_embedder, parse_device
from ape_model.preprocess import prepare_images
from ape_model.prompts import PromptKind, classify
from ape_model.store import resolve
from ape_stream import masks
from ape_stream.errors import ModelError, PromptError
from ape_stream.types import Instances

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ape_model.ape import ImageFeatures, RawOutputs
    from ape_stream.types import Frame, Mask, PromptSet

__all__ = ["ApePerceiver"]

THRESHOLDS: Final = {"nano": 0.5}
OFFICIAL_THRESHOLD: Final = 0.3
"""Score that is kept where nobody says otherwise; quality focal loss needs the higher one."""
OVERLAP: Final = 0.7
"""IoU above which the weaker of two regions of one prompt falls (the official value)."""
NANO_GRAIN: Final = 32


class ApePerceiver:
    """APE as a perceiver.

    Args:
        model: "nano", a model that was imported or pulled, or the path of one.
        threshold: lowest score kept for prompts without one of their own, 0..1.
        device: where the network runs: "auto" (the first GPU, else the CPU), "cpu", "cuda:1" ...
        canvas: long edge of the picture that the network sees, pixels; None for the model's own.
        official: class prompts as the official code does: one with a space makes all sentences.
        bank: file of prompt embeddings made by `ape-stream prompts embed`.
        per_prompt: most regions of one prompt in one frame.

    Raises:
        ModelError: the model is not here, cannot be read, or the device is not.
    """

    def __init__(
        self,
        *,
        model: str = "nano",
        threshold: float | None = None,
        device: str = "auto",
        canvas: int | None = None,
        official: bool = False,
        bank: str | None = None,
        per_prompt: int = 100,
    ) -> None:
        with _told_as_ours():
            files = resolve(model)
            self.device = parse_device(device)
            self.network = build_network(files, self.device)
            path = None if bank is None else Path(bank)
            self._embedder = open_embedder(files, self.device, bank=path)
        self._vocabulary = files.vocabulary
        self._official = official
        self._per_prompt = per_prompt
        # Nano learns masks inside boxes only; the official masks are of the whole picture.
        self._boxed = files.variant == "nano"
        self._grain = NANO_GRAIN if self._boxed else None
        self._canvas = canvas or self.network.config.canvas
        self._threshold = (
            THRESHOLDS.get(files.variant, OFFICIAL_THRESHOLD) if threshold is None else threshold
        )
        self._groups: dict[PromptKind, tuple[Tensor, Tensor]] = {}
        self._least = torch.zeros(0)
        self._stuff = np.zeros(0, np.bool_)

    def prepare(self, prompts: PromptSet) -> None:
        """Take these prompts from the next frame on; only new ones are encoded.

        Raises:
            PromptError: a prompt cannot be encoded with what is here.
        """
        given = [None if p.kind is None else PromptKind(p.kind.value) for p in prompts]
        with _told_as_ours():
            kinds = classify(prompts.texts, given, self._vocabulary, official=self._official)
            embedded = self._embedder.embed(prompts.texts).to(self.device)
        groups = {}
        for kind in dict.fromkeys(kinds):
            rows = torch.tensor([k for k, own in enumerate(kinds) if own is kind])
            groups[kind] = rows.to(self.device), embedded[rows]
        least = [self._threshold if p.threshold is None else p.threshold for p in prompts]
        self._groups, self._least = groups, torch.tensor(least, device=self.device)
        self._stuff = np.array([prompt.stuff for prompt in prompts])

    @torch.inference_mode()
    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        """Find the prepared prompts in each frame, all frames in one call of the network."""
        config = self.network.config
        images, sizes = prepare_images(
            [frame.image for frame in frames],
            self._canvas,
            mean=config.pixel_mean,
            std=config.pixel_std,
            grain=self._grain,
        )
        features = self.network.encode_image(images.to(self.device), sizes)
        found: list[list[Instances]] = [[] for _ in frames]
        for kind, (rows, embedded) in self._groups.items():
            name = kind is PromptKind.VOCABULARY
            prompts = (self.network.vocabulary if name else self.network.sentences)(embedded)
            outputs = self.network.head(features, prompts)
            for index, frame in enumerate(frames):
                found[index].append(self._instances(features, outputs, index, rows, frame.size))
        return [self._joined(parts) for parts in found]

    def _instances(
        self,
        features: ImageFeatures,
        outputs: RawOutputs,
        index: int,
        rows: Tensor,
        size: tuple[int, int],
    ) -> Instances:
        """Regions of one frame for the prompts of one kind; `rows` are their prompt ids."""
        kept = keep_regions(
            outputs.logits[index],
            outputs.boxes[index],
            self._least[rows],
            overlap=OVERLAP,
            per_prompt=self._per_prompt,
        )
        # A query that answers to several prompts has one mask.
        queries, which = kept.queries.unique(return_inverse=True)
        logits = self.network.mask_logits(
            outputs.hidden[index][queries], outputs.mask_feature[index]
        )
        boxes = outputs.boxes[index][queries] if self._boxed else None
        cut = _cut(logits, features, index, size, boxes)
        own = [cut[k] for k in which.tolist()]
        solid = [k for k, mask in enumerate(own) if mask.bitmap.size]
        chosen = [own[k] for k in solid]
        return Instances(
            boxes=masks.boxes(chosen),
            scores=kept.scores.cpu().numpy()[solid],
            prompt_ids=rows[kept.prompts].cpu().numpy()[solid],
            masks=tuple(chosen),
            size=size,
        )

    def _joined(self, parts: list[Instances]) -> Instances:
        """All kinds of prompts of one frame in one, stuff as one region per prompt."""
        whole = parts[0] if len(parts) == 1 else _concatenated(parts)
        return _stuff_united(whole, self._stuff) if self._stuff.any() else whole


def _cut(
    logits: Tensor,
    features: ImageFeatures,
    index: int,
    size: tuple[int, int],
    boxes: Tensor | None,
) -> list[Mask]:
    """Low-resolution mask logits (K, h, w) to masks of the frame, inside boxes if given."""
    h, w = features.sizes[index]
    cells = logits.shape[-2:]
    filled = (h * cells[0] / features.canvas[0], w * cells[1] / features.canvas[1])
    low = logits.float()
    if boxes is not None:
        low = _only_near_boxes(low, boxes, filled)
    return [masks.from_logits(one, size, filled) for one in low.cpu().numpy()]


def _only_near_boxes(logits: Tensor, boxes: Tensor, filled: tuple[float, float]) -> Tensor:
    """Mask logits without what lies outside their grown (K, 4) boxes: a far speck is no part."""
    middle, half = boxes[:, :2], boxes[:, 2:] * 0.58
    scale = torch.tensor([filled[1], filled[0]], device=boxes.device)
    low, high = (middle - half) * scale - 1, (middle + half) * scale + 1
    x = torch.arange(logits.shape[2], device=boxes.device) + 0.5
    y = torch.arange(logits.shape[1], device=boxes.device) + 0.5
    inside_x = (x >= low[:, :1]) & (x <= high[:, :1])
    inside_y = (y >= low[:, 1:]) & (y <= high[:, 1:])
    outside = ~(inside_y[:, :, None] & inside_x[:, None])
    return logits.masked_fill(outside, -20.0)


def _concatenated(parts: list[Instances]) -> Instances:
    return Instances(
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        prompt_ids=np.concatenate([part.prompt_ids for part in parts]),
        masks=tuple(mask for part in parts for mask in part.masks),
        size=parts[0].size,
    )


def _stuff_united(found: Instances, stuff: np.ndarray) -> Instances:
    """Unite the regions of every stuff prompt: one sky, however many clouds divide it."""
    things = ~stuff[found.prompt_ids]
    whole = [found.select(things)]
    for prompt in np.unique(found.prompt_ids[~things]):
        regions = found.select(found.prompt_ids == prompt)
        dense = np.any([masks.paste(mask, found.size) for mask in regions.masks], axis=0)
        united = (masks.cut(dense),)
        whole.append(
            Instances(
                boxes=masks.boxes(united),
                scores=regions.scores.max(keepdims=True),
                prompt_ids=regions.prompt_ids[:1],
                masks=united,
                size=found.size,
            )
        )
    return _concatenated(whole)


@contextmanager
def _told_as_ours() -> Iterator[None]:
    """Turn the network's errors into the stream's."""
    try:
        yield
    except PromptTextError as error:
        raise PromptError(str(error)) from error
    except NetworkError as error:
        raise ModelError(str(error)) from error
