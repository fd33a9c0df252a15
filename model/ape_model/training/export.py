"""From a training state to the file that ships."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from ape_model.weights import aliases_of, save_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from ape_model.nano import Nano

__all__ = ["export", "read_average", "recipe_hash"]


def recipe_hash(recipe: object) -> str:
    """Return a short digest of a recipe (a dataclass), the same wherever it is computed."""
    text = json.dumps(asdict(recipe), sort_keys=True, default=str)  # type: ignore[call-overload]
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def export(
    model: Nano, averaged: Mapping[str, Tensor], path: Path, facts: Mapping[str, object]
) -> None:
    """Write averaged weights as float16 safetensors.

    Args:
        model: the network that they belong to.
        averaged: its averaged state.
        path: file to write.
        facts: seed, steps, images seen and the like, for the header.

    Raises:
        CheckpointError: the file cannot be written.
    """
    halves = {
        key: value.half() if value.is_floating_point() else value for key, value in averaged.items()
    }
    said = {key: str(value) for key, value in facts.items()}
    save_weights(path, halves, aliases_of(model), {"variant": model.config.name, **said})


def read_average(path: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Read averaged weights and counts from a training state."""
    state = torch.load(path, weights_only=True, map_location="cpu")
    return state["ema"], state["counts"]
