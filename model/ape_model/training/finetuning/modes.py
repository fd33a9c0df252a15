"""Which weights of a network a mode learns, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ape_model.training.finetuning.lora import add_low_rank, merge_low_rank
from ape_model.training.finetuning.mode import Mode
from ape_model.training.rates import layer_factor, warm_up_and_cosine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from ape_model.network.ape import Ape
    from ape_model.training.finetuning.config import FineTuneConfig

__all__ = ["TunedWeights", "make_optimizer", "schedule"]

_HEADS = ("class_embed", "bbox_embed", "mask_head")
"""Parts of the names of the heads, those of the first stage and the ambiguous ones among them."""


class TunedWeights:
    """A network of which some weights learn.

    Args:
        network: All of its weights stop learning, then those of the mode start.
        mode: What is learnt.
        config: Rank and seed of low-rank changes.
    """

    def __init__(self, network: Ape, mode: Mode, config: FineTuneConfig) -> None:
        self.network, self.mode = network, mode
        network.requires_grad_(requires_grad=False)
        # A batch norm keeps its statistics: only weights learn.
        network.train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        if mode is Mode.LORA:
            for part in self._low_rank_parts():
                add_low_rank(part, config.rank, config.seed)
        self.parameters = {
            name: parameter
            for name, parameter in network.named_parameters()
            if _is_learnt(name, mode)
        }
        for parameter in self.parameters.values():
            parameter.requires_grad_()

    def _low_rank_parts(self) -> tuple[nn.Module, nn.Module]:
        return self.network.transformer.encoder, self.network.transformer.decoder

    def finish(self) -> frozenset[str]:
        """Merge low-rank changes; return the names of what was learnt, as official checkpoints."""
        changed = list(self.parameters.values())
        if self.mode is Mode.LORA:
            changed = [p for part in self._low_rank_parts() for p in merge_low_rank(part)]
        learnt = {id(parameter) for parameter in changed}
        state = self.network.state_dict(keep_vars=True)
        return frozenset(key for key, value in state.items() if id(value) in learnt)


def _is_learnt(name: str, mode: Mode) -> bool:
    match mode:
        case Mode.PROMPT:
            return False
        case Mode.HEAD:
            return any(head in name for head in _HEADS)
        case Mode.LORA:
            return ".parametrizations." in name and name.endswith((".up", ".down"))
        case Mode.FULL:
            # The zero token stands for no text: the released models never learnt it either.
            return name != "name_prompt_fusion_feature"


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], depth: int, mode: Mode, config: FineTuneConfig
) -> torch.optim.AdamW:
    """Make the optimizer of a run.

    Args:
        parameters: What is learnt, by name.
        depth: Blocks of the backbone.
        mode: Of the run.
        config: Rates and weight decay.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        rate = config.rate(mode)
        if mode is Mode.PROMPT:  # in the size of a vector's numbers
            rate *= float(parameter.detach().abs().mean())
        elif mode is Mode.FULL:
            rate *= layer_factor(name, depth, config.layer_decay)
        groups.setdefault((parameter.ndim >= 2 and mode is not Mode.PROMPT, rate), []).append(
            parameter
        )
    listed: list[dict[str, Any]] = [
        {"params": ps, "lr": rate, "base": rate, "weight_decay": config.weight_decay * wide}
        for (wide, rate), ps in groups.items()
    ]
    return torch.optim.AdamW(listed)


def schedule(config: FineTuneConfig, updates: int) -> Callable[[Mapping[str, Any], int], float]:
    """Learning rate of a group at a batch: warm-up, constant, cosine to zero."""

    def rate(group: Mapping[str, Any], batch: int) -> float:
        base: float = group["base"]
        return base * warm_up_and_cosine(
            batch // config.batch, updates, config.warm_up, config.decay_from
        )

    return rate
