"""Any object of the right shape is a part of a pipeline: here an own model and an own output."""

from collections.abc import Sequence
from typing import Self

import cv2
import numpy as np

import ape_stream


class Brightest:
    """A "model" that finds the brightest tenth of a frame, for every prompt."""

    def prepare(self, prompts: ape_stream.PromptSet) -> None:
        """Nothing to encode."""

    def perceive(self, frames: Sequence[ape_stream.Frame]) -> list[ape_stream.Instances]:
        """One region per frame."""
        return [self._find(frame) for frame in frames]

    def _find(self, frame: ape_stream.Frame) -> ape_stream.Instances:
        grey = cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)
        bright = grey >= np.quantile(grey, 0.9)
        height, width = frame.size
        return ape_stream.Instances(
            boxes=np.array([[0, 0, width, height]], np.float32),
            scores=np.array([bright.mean()], np.float32),
            prompt_ids=np.zeros(1, np.int64),
            masks=(ape_stream.Mask(bright),),
            size=frame.size,
        )


class Counter:
    """An output that counts pixels."""

    def __init__(self) -> None:
        self.pixels = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        print(f"{self.pixels} bright pixels")

    def write(self, result: ape_stream.FrameResult) -> None:
        """Add this frame's."""
        self.pixels += sum(int(mask.bitmap.sum()) for mask in result.instances.masks)


for result in ape_stream.open("examples/demo.mp4", "light", model=Brightest(), outputs=[Counter()]):
    if result.frame.index == 30:
        break
