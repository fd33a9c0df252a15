"""YOLOE and YOLO-World, of ultralytics.

That library is under the AGPL: nothing here imports it before one of its models is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ape_peers.perceiver import PeerPerceiver
from ape_peers.regions import NEVER, Candidates
from ape_stream import masks
from ape_stream.devices import parse_device
from ape_stream.errors import ModelError
from ape_stream.optional import library

if TYPE_CHECKING:
    from torch import Tensor

    from ape_stream.types import Frame, Mask, PromptSet

__all__ = ["YoloWorldPerceiver", "YoloePerceiver"]

LOWEST_SCORE = 0.001
"""Of ultralytics' own evaluation."""
MOST = 300
"""Regions of an image, the same."""


class _YoloPerceiver(PeerPerceiver):
    """A model of ultralytics as a perceiver.

    Args:
        model: File of the weights. Those files are pickles, which can run code: take them from
            where you trust.
        threshold: Lowest score kept for prompts without one of their own, 0..1.
        device: "auto" (the first GPU, else the CPU), "cpu", "cuda:1" ...
        canvas: Longest side of the image that the network sees, pixels.
        nms: Of two boxes of one prompt with a greater IoU, the weaker one is dropped.
        per_prompt: Most regions of one prompt in one frame.

    Raises:
        ModelError: the file is not here or cannot be read, or the device is not here.
        PluginError: the extra `ultralytics` is not installed.
        UsageError: a number is out of its range.
    """

    kind: str
    """The class of ultralytics."""

    def __init__(
        self,
        *,
        model: str,
        threshold: float = 0.25,
        device: str = "auto",
        canvas: int = 640,
        nms: float = 0.7,
        per_prompt: int = 100,
    ) -> None:
        super().__init__(threshold=threshold, nms=nms, per_prompt=per_prompt)
        self._place, self._canvas = parse_device(device), canvas
        make = getattr(library("ultralytics", "ultralytics"), self.kind)
        if not Path(model).is_file():
            raise ModelError(f"no file {model}: download the weights first")
        try:
            self.network: Any = make(model)
        except Exception as error:  # what a file may hold, the library may trip over in any way
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{model} cannot be read as {self.kind}: {reason}") from error
        self._texts: list[str] = []

    @staticmethod
    def weights(*, model: str, **_: Any) -> list[Path]:
        """The files that a perceiver with these options reads; see `KnowsWeights`."""
        return [Path(model)]

    def encode(self, prompts: PromptSet) -> None:
        """Have the library embed the prompts, if they are others than before."""
        texts = list(prompts.texts)
        if texts != self._texts:
            self._set(texts)
            self._texts = texts

    def _set(self, texts: list[str]) -> None:
        self.network.set_classes(texts)

    def candidates(self, frame: Frame) -> list[Candidates]:
        """What the library finds."""
        [found] = self.network.predict(
            frame.image,  # blue-green-red, as it takes arrays
            conf=LOWEST_SCORE,
            iou=self._nms,
            max_det=MOST,
            imgsz=self._canvas,
            device=str(self._place),
            retina_masks=True,  # in pixels of the frame
            verbose=False,
        )
        classes = found.boxes.cls.long().cpu()
        # Each box has a score for one prompt only.
        scores = torch.full((len(classes), len(self._texts)), NEVER)
        scores[torch.arange(len(classes)), classes] = found.boxes.conf.float().cpu()
        # Without a region there are no masks either: whether the model makes some is not known.
        pixels = None if found.masks is None else found.masks.data
        return [
            Candidates(
                boxes=found.boxes.xyxy.float().cpu(),
                scores=scores,
                prompt_ids=torch.arange(len(self._texts)),
                masks=_cutter(pixels) if self._makes_masks(found) else None,
            )
        ]

    def _makes_masks(self, found: Any) -> bool:
        return found.masks is not None or getattr(self.network, "task", "detect") == "segment"


def _cutter(pixels: Tensor | None) -> Any:
    def cut(rows: list[int]) -> tuple[Mask, ...]:
        if pixels is None:
            return ()
        return tuple(masks.crop(np.asarray(pixels[row].cpu()) >= 0.5) for row in rows)

    return cut


class YoloePerceiver(_YoloPerceiver):
    """YOLOE (Wang et al., arXiv 2503.07465), with masks where the model makes some."""

    kind = "YOLOE"

    def _set(self, texts: list[str]) -> None:
        self.network.set_classes(texts, self.network.get_text_pe(texts))


class YoloWorldPerceiver(_YoloPerceiver):
    """YOLO-World (Cheng et al., arXiv 2401.17270), boxes only."""

    kind = "YOLOWorld"
