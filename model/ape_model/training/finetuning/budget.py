"""How much memory a run needs, before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from ape_model.config import NanoConfig
from ape_model.training.errors import TrainingError
from ape_model.training.finetuning.mode import Mode

if TYPE_CHECKING:
    from ape_model.config import ApeConfig, VitConfig

__all__ = ["Budget", "available_memory", "check_budget", "estimate"]

_FLOAT: Final = 4  # bytes
_MOMENTS: Final = 2  # AdamW keeps two numbers for each weight
_MASKS: Final = 32
"""Masks of an image that are taken to be learnt at once."""
_GIGA: Final = 1e9


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes of a run."""

    weights: int
    """Of the whole network, float32."""
    gradients: int
    """Of what is learnt."""
    optimizer: int
    """Of AdamW."""
    activations: int
    """Estimate of what one image leaves for the backward pass."""

    @property
    def total(self) -> int:
        """Sum of all."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        """Return the parts as one line."""
        parts = (
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations about", self.activations),
        )
        listed = ", ".join(f"{name} {_size(count)}" for name, count in parts)
        return f"memory: {_size(self.total)} ({listed})"


def _size(count: int) -> str:
    return f"{count / _GIGA:.2f} GB" if count >= _GIGA / 10 else f"{count / 1e6:.2f} MB"


def estimate(
    network: NanoConfig | ApeConfig,
    mode: Mode,
    *,
    weights: int,
    learnt: int,
    prompts: int,
    checkpointing: bool,
) -> Budget:
    """Estimate the memory of a run on batches of one image.

    Args:
        network: Sizes.
        mode: Of the run.
        weights: Numbers in the network.
        learnt: Numbers that are learnt.
        prompts: Prompts of a step.
        checkpointing: Activations of layers are computed twice and not kept.
    """
    numbers = _activations(network, mode, prompts, checkpointing=checkpointing)
    return Budget(
        weights=weights * _FLOAT,
        gradients=learnt * _FLOAT,
        optimizer=_MOMENTS * learnt * _FLOAT,
        activations=numbers * _FLOAT,
    )


def _activations(
    network: NanoConfig | ApeConfig, mode: Mode, prompts: int, *, checkpointing: bool
) -> int:
    """Numbers that one image leaves for the backward pass, about.

    The factors count the tensors that the layers of `ape_model.network` save.
    """
    ape = network.ape if isinstance(network, NanoConfig) else network
    finest = 8 if isinstance(network, NanoConfig) else 4  # stride of the finest level, pixels
    side = ape.canvas // finest
    tokens = sum(max(1, side >> level) ** 2 for level in range(ape.levels))
    scores = 6 * ape.decoder_layers * ape.queries * prompts
    if mode is Mode.PROMPT:
        return scores
    cells = (ape.canvas // 4) ** 2
    heads = 3 * tokens * ape.hidden + cells * (6 * ape.hidden + 5 * _MASKS) + scores
    if mode is Mode.HEAD:
        return heads
    samples = ape.heads * ape.levels * ape.points
    layer = tokens * (9 * ape.hidden + 2 * ape.ffn + 4 * samples)
    fusion = tokens * (4 * ape.hidden + 3 * ape.fusion_heads) if ape.fusion else 0
    query = ape.queries * (14 * ape.hidden + 2 * ape.ffn + 4 * samples)
    decoder = ape.decoder_layers * (query + tokens * ape.hidden)
    stack = ape.encoder_layers * (layer + fusion)
    if checkpointing:  # the input of each layer, and one layer as a whole
        stack = layer + fusion + 2 * ape.encoder_layers * tokens * ape.hidden
    total = heads + decoder + stack
    return total if mode is Mode.LORA else total + _backbone(ape, checkpointing=checkpointing)


def _backbone(ape: ApeConfig, *, checkpointing: bool) -> int:
    vit: VitConfig = ape.backbone
    tokens = (ape.canvas // vit.patch) ** 2
    block = int(tokens * vit.width * (12 + 5 * vit.mlp_ratio))
    blocks = vit.depth * block
    if checkpointing:
        blocks = block + vit.depth * tokens * vit.width
    # The pyramid: at stride 4 a quarter of the width and some maps of the transformer's.
    return blocks + 16 * tokens * (2 * vit.width + 6 * ape.hidden)


def available_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def check_budget(budget: Budget, device: torch.device, most: int | None) -> None:
    """Refuse a run that does not fit.

    Args:
        budget: Of the run.
        device: Where it runs.
        most: Bytes that the user allows; None: what is free on the device.

    Raises:
        TrainingError: it does not fit.
    """
    limit = available_memory(device) if most is None else most
    if limit is not None and budget.total > limit:
        what = "are free on" if most is None else "are allowed on"
        raise TrainingError(
            f"the run needs {_size(budget.total)} and {_size(limit)} {what} {device}: choose a"
            " cheaper --mode (prompt, head, lora, full) or a larger device"
        )
