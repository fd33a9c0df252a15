"""What learns, and how fast: AdamW with a rate for every layer of the backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from ape_model.training.rates import layer_factor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from ape_model.network.ape import Ape
    from ape_model.training.official.recipe import OptimizerConfig

__all__ = ["learnt_weights", "make_optimizer"]

_ZERO_TOKEN: Final = "name_prompt_fusion_feature"  # noqa: S105 (the name of a weight)
_NO_DECAY: Final = "pos_embed"


def learnt_weights(network: Ape) -> dict[str, nn.Parameter]:
    """All weights by name, but for the zero token, which stands for no text."""
    weights = dict(network.named_parameters())
    zero = weights.pop(_ZERO_TOKEN, None)
    if zero is not None:
        zero.requires_grad_(False)
    return weights


def make_optimizer(
    weights: Mapping[str, nn.Parameter], config: OptimizerConfig
) -> torch.optim.AdamW:
    """Make the optimizer of a run; each group has its rate in `base`, for the schedule.

    Args:
        weights: What learns, by name.
        config: Rates and weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in weights.items():
        rate = config.learning_rate * layer_factor(name, config.decay_layers, config.layer_decay)
        decay = 0.0 if name.endswith(_NO_DECAY) else config.weight_decay
        groups.setdefault((rate, decay), []).append(weight)
    listed: list[dict[str, Any]] = [
        {"params": own, "lr": rate, "base": rate, "weight_decay": decay}
        for (rate, decay), own in groups.items()
    ]
    return torch.optim.AdamW(listed, betas=config.betas)
