"""From a model's files to its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ape_model.ape import Ape
from ape_model.config import PRESETS
from ape_model.nano import Nano
from ape_model.nano_config import NANO
from ape_model.weights import load_weights

if TYPE_CHECKING:
    import torch

    from ape_model.store import ModelFiles

__all__ = ["build_network"]


def build_network(files: ModelFiles, device: torch.device) -> Ape:
    """Load the vision side of a model, in float32, ready for inference.

    Raises:
        CheckpointError: the weights cannot be read or do not fit.
    """
    network = Nano(NANO) if files.variant == "nano" else Ape(PRESETS[files.variant])
    load_weights(network, files.vision)
    return network.eval().requires_grad_(requires_grad=False).to(device)
