"""From a model's files to the model: network, text tower, prompt embedder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING


from ape_model.ape import Ape
from ape_model.bank import PromptBank
from ape_model.config import PRESETS
from ape_model.embedding_cache import EmbeddingCache, EmbeddingSpace, cache_root
from ape_model.nano import Nano
from ape_model.nano_config import NANO
from ape_model.nano_text import NanoTextEncoder
from ape_model.prompts import PromptEmbedder
from ape_model.text import TEXT_TOWERS, ClipTextEncoder, TextTower
from ape_model.weights import load_weights

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ape_model.prompts import TextEncoder
    from ape_model.store import ModelFiles

__all__ = ["build_embedder", "build_network"]


def build_network(files: ModelFiles, device: torch.device) -> Ape:
    """Load the vision side of a model, in float32, ready for inference.

    Raises:
        CheckpointError: the weights cannot be read or do not fit.
    """
    network = Nano(NANO) if files.variant == "nano" else Ape(PRESETS[files.variant])
    load_weights(network, files.vision)
    return network.eval().requires_grad_(requires_grad=False).to(device)


def build_embedder(
    files: ModelFiles, *, bank: Path | None = None, cache: bool = True
) -> PromptEmbedder:
    """Make what embeds prompts; the text tower is loaded only for a prompt that nobody knows.

    Args:
        files: of the model.
        bank: embeddings that came with the model, if any.
        cache: keep embeddings on disk.

    Raises:
        BankError: the bank cannot be read or was made by another text tower.
    """
    pooling = "mean" if files.text_tower == "nano" else "eot"
    return PromptEmbedder(
        EmbeddingSpace(files.text_digest, "float32", pooling),
        None if files.text is None else partial(_load_text, files.text_tower, files.text),
        cache=EmbeddingCache(cache_root()) if cache else None,
        bank=None if bank is None else PromptBank.load(bank),
    )


def _load_text(kind: str, path: Path) -> TextEncoder:
    if kind == "nano":
        return NanoTextEncoder.load(path)
    tower = TextTower(TEXT_TOWERS[kind])
    load_weights(tower, path)
    return ClipTextEncoder(tower.eval())
