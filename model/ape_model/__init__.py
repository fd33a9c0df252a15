"""APE as torch modules, and all that makes it run: weights, prompts, frames, training.

config, errors     sizes and habits of every model; the tree of errors
network            images and embeddings to regions and masks; inference: a frame's way through it
text               prompts to embeddings; weights: where models are; io: their files
loading            from a model's files to what runs; perceiver: the bridge to `ape_stream`
queries            what an index keeps of a frame, and what scores it later
reference, benchmark    slow forms that fast ones must equal; speed as ratios
training, world    how nano is trained, and on what; commands: what `ape-stream` gains by this
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ape_model.loading import load
    from ape_model.network.ape import Ape
    from ape_model.perceiver import ApePerceiver

__all__ = ["Ape", "ApePerceiver", "load"]

_HOMES = {
    "Ape": "ape_model.network.ape",
    "ApePerceiver": "ape_model.perceiver",
    "load": "ape_model.loading",
}


def __getattr__(name: str) -> Any:
    """Import on use: torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
