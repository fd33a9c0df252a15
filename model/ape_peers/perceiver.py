"""What all peers share: a perceiver that asks a network for candidates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch

from ape_peers.regions import confident, strongest
from ape_stream.errors import ConfigError
from ape_stream.values.prompts import check_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_peers.regions import Candidates
    from ape_stream.types import Frame, Instances, PromptSet

__all__ = ["PeerPerceiver"]


class PeerPerceiver(ABC):
    """A network that answers with candidates, as a perceiver.

    Args:
        threshold: Lowest score kept for prompts without one of their own, 0..1.
        nms: Of two boxes of one prompt with a greater IoU, the weaker one is dropped; 1 keeps both.
        per_prompt: Most regions of one prompt in one frame.

    Raises:
        UsageError: a number is out of its range.
    """

    def __init__(self, *, threshold: float, nms: float, per_prompt: int) -> None:
        check_threshold(threshold)
        if not 0.0 < nms <= 1.0:
            raise ConfigError(f"nms is {nms}, not within 0..1")
        if per_prompt < 1:
            raise ConfigError(f"per_prompt is {per_prompt}: at least 1 region must be kept")
        self._threshold = threshold
        self._nms = nms
        self._per_prompt = per_prompt
        self._thresholds = torch.zeros(0)

    @abstractmethod
    def encode(self, prompts: PromptSet) -> None:
        """Take these prompts from the next frame on.

        Raises:
            PromptError: a prompt cannot be used.
        """

    @abstractmethod
    def candidates(self, frame: Frame) -> list[Candidates]:
        """What the network finds in a frame: at least one, together for all prompts."""

    @property
    def threshold(self) -> float:
        """Lowest score kept for prompts without a threshold of their own, 0..1."""
        return self._threshold

    def prepare(self, prompts: PromptSet) -> None:
        """See `Perceiver`."""
        self.encode(prompts)
        self._thresholds = torch.tensor(
            [self._threshold if one.threshold is None else one.threshold for one in prompts]
        )

    @torch.inference_mode()
    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        """See `Perceiver`."""
        return [
            confident(
                self.candidates(frame),
                frame.size,
                self._thresholds,
                nms=self._nms,
                per_prompt=self._per_prompt,
            )
            for frame in frames
        ]

    @torch.inference_mode()
    def rank(self, frames: Sequence[Frame], top_k: int) -> list[Instances]:
        """See `RanksRegions`."""
        return [strongest(self.candidates(frame), frame.size, top_k) for frame in frames]
