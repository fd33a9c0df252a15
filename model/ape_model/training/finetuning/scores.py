"""How good a model is before and after, and what it has forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ape_model.training.data.batch import collate
from ape_model.training.validate import validate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ape_model.config import ApeConfig, NanoConfig
    from ape_model.network.ape import Ape
    from ape_model.training.data.batch import Example

__all__ = ["Forgetting", "OldWords", "score"]


@torch.no_grad()
def score(
    network: Ape,
    names: Tensor,
    things: int,
    examples: Sequence[Example],
    config: NanoConfig | ApeConfig,
) -> dict[str, float]:
    """Average precision and recall as in `validate`, of a network that may be training."""
    was_training = network.training
    try:
        return validate(network.eval(), names.detach(), things, examples, config)
    finally:
        _train(network, on=was_training)


def _train(network: Ape, *, on: bool) -> None:
    """Set the mode; batch norms stay as they are in inference."""
    network.train(on)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


@dataclass(frozen=True, slots=True)
class Forgetting:
    """How the scores of old words have changed on images."""

    words: int
    """Old words that were asked for."""
    moved: float
    """Mean change of a word's best score in an image, 0..1."""
    before: float
    """Old words that scored over the threshold, per image, before."""
    after: float
    """And after."""

    def __str__(self) -> str:
        """Return one line."""
        return (
            f"{self.words} old words: best scores moved by {self.moved:.4f} on average, found per"
            f" image {self.before:.2f} before and {self.after:.2f} after"
        )


class OldWords:
    """Scores of words that a run does not learn, on the images of its score.

    Args:
        vectors: (N, D) of the words.
        examples: Images.
        config: Of the network.
    """

    def __init__(
        self, vectors: Tensor, examples: Sequence[Example], config: NanoConfig | ApeConfig
    ) -> None:
        self.vectors, self.examples, self.config = vectors, examples, config

    @torch.no_grad()
    def measure(self, network: Ape) -> Tensor:
        """(images, N) best score of every old word in every image."""
        was_training = network.training
        network.eval()
        rows = []
        for example in self.examples:
            batch = collate([example], self.config)
            prompts = network.vocabulary(self.vectors)
            outputs = network(batch.images.to(self.vectors.device), prompts, batch.sizes)
            rows.append(outputs.logits[0].sigmoid().amax(0).cpu())
        _train(network, on=was_training)
        return torch.stack(rows)

    def compare(self, before: Tensor, after: Tensor, threshold: float) -> Forgetting:
        """Compare two measurements; a word is found where it scores over the threshold."""
        return Forgetting(
            words=before.shape[1],
            moved=float((after - before).abs().mean()),
            before=float((before > threshold).sum(1).float().mean()),
            after=float((after > threshold).sum(1).float().mean()),
        )
