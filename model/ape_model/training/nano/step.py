"""The losses of nano's batches: its prompts, the network, and the criterion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ape_model.training.losses.criterion import Criterion

if TYPE_CHECKING:
    from torch import Tensor

    from ape_model.network.ape import Ape
    from ape_model.training.data.batch import Batch
    from ape_model.training.nano.config import LoopConfig
    from ape_model.training.prompts.sampler import PromptSampler

__all__ = ["NanoStep"]


class NanoStep:
    """Computes weighted losses by name.

    Args:
        network: That learns, on its device.
        prompt_sampler: Chooses the prompts of a batch.
        config: Of the criterion, and how long its class head learns alone.
    """

    def __init__(self, network: Ape, prompt_sampler: PromptSampler, config: LoopConfig) -> None:
        self.network, self.prompt_sampler, self.config = network, prompt_sampler, config
        torch.manual_seed(config.seed)  # of the criterion's own weights
        hidden, text_width = network.config.hidden, network.config.text_width
        device = next(network.parameters()).device
        self.criterion = Criterion(hidden, text_width, config.classification).to(device)
        self._norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Weighted losses by name; those of phrases and expressions begin with `s/`."""
        self.network.train()
        if self.config.freeze_norms:
            for norm in self._norms:
                norm.eval()
        sampled = self.prompt_sampler(self.network, batch, step)
        # Only the backbone is cut off: what follows it still trains on its features.
        with torch.set_grad_enabled(sampled.trains_backbone):
            features = self.network.encode_image(batch.images, batch.sizes)
        outputs = self.network.head(features, sampled.prompts)
        apart = step < self.config.heads_first
        losses = self.criterion(
            self.network, features, outputs, batch, sampled.targets, apart=apart
        )
        prefix = "s/" if sampled.targets.names is None else ""
        return {f"{prefix}{name}": value for name, value in losses.items()}
