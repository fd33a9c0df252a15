"""Which weights of nano and of its criterion learn, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from ape_model.training.engine import Learner
from ape_model.training.nano.step import NanoStep
from ape_model.training.rates import layer_factor, warm_up_and_cosine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from ape_model.network.ape import Ape
    from ape_model.training.averaging import AveragedWeights
    from ape_model.training.nano.config import LoopConfig
    from ape_model.training.prompts.sampler import PromptSampler

__all__ = ["make_learner"]

HEAD_RATE: Final = 1e-3
"""Learning rate of the criterion's class head during `heads_first`."""
_HEAD: Final = "criterion."
"""Names of the criterion's weights begin with it."""


def make_learner(
    network: Ape, prompt_sampler: PromptSampler, config: LoopConfig, average: AveragedWeights
) -> Learner:
    """Put together what nano gives to the loop.

    Args:
        network: On its device.
        prompt_sampler: Chooses the prompts of a batch.
        config: Optimizer and losses.
        average: Of the network's weights.
    """
    step = NanoStep(network, prompt_sampler, config)
    head = {f"{_HEAD}{name}": p for name, p in step.criterion.named_parameters()}
    return Learner(
        trained={**dict(network.named_parameters()), **head},
        optimizer=_make_optimizer(network, step.criterion, config),
        losses=step,
        rate=_schedule(config),
        buffers=_norm_statistics(network),
        unclipped=head.keys(),  # whose gradients must not shrink the network's
        memory=prompt_sampler,
        average=average,
    )


def _norm_statistics(network: nn.Module) -> dict[str, Tensor]:
    """What batch norms have seen, by name; other buffers are tables that never change."""
    return {
        f"{name}.{key}": buffer
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key, buffer in module.named_buffers()
    }


def _make_optimizer(
    network: Ape, criterion: nn.Module, config: LoopConfig
) -> torch.optim.Optimizer:
    """Make AdamW with groups by weight decay and learning rate; the criterion's come last."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    # The order of the groups is part of a saved state: the optimizer restores them by position.
    for name, p in network.named_parameters():
        scale = layer_factor(name, network.config.backbone.depth, config.layer_decay)
        groups.setdefault((p.ndim >= 2, scale), []).append(p)
    listed = [
        _group(ps, config, wide=wide, base=scale, head=False)
        for (wide, scale), ps in groups.items()
    ]
    for wide in (True, False):
        ps = [p for p in criterion.parameters() if (p.ndim >= 2) is wide]
        listed.append(_group(ps, config, wide=wide, base=1.0, head=True))
    return torch.optim.AdamW(listed, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def _group(
    parameters: list[nn.Parameter], config: LoopConfig, *, wide: bool, base: float, head: bool
) -> dict[str, Any]:
    """A group; `base` and `head` are ours: the optimizer keeps what it does not know."""
    decay = config.weight_decay if wide else 0.0
    return {"params": parameters, "weight_decay": decay, "base": base, "head": head}


def _schedule(config: LoopConfig) -> Callable[[Mapping[str, Any], int], float]:
    """Learning rate of a group at a step: warm-up, constant, cosine to zero."""

    def rate(group: Mapping[str, Any], step: int) -> float:
        if group["head"] and step < config.heads_first:
            return HEAD_RATE
        peak, steps = config.learning_rate, config.steps
        factor: float = group["base"]
        return factor * warm_up_and_cosine(
            step, steps, config.warm_up, config.decay_from, peak=peak
        )

    return rate
