"""From a model's files to what runs: its network, its text tower and the embedder around it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch

from ape_model.config import NANO, PRESETS, NanoConfig
from ape_model.errors import BankError, CheckpointError, PromptTextError, VariantError
from ape_model.io.read_errors import read_errors
from ape_model.io.safetensors_io import read_metadata
from ape_model.network.ape import Ape
from ape_model.network.nano import build_nano
from ape_model.network.nano_backbone import NanoBackbone
from ape_model.text.cache import EmbeddingCache, EmbeddingSpace, cache_root
from ape_model.text.clip_tower import TEXT_TOWERS, ClipTextEncoder, Pooling, TextTower
from ape_model.text.embedder import PromptEmbedder
from ape_model.text.embedding_file import EmbeddingFile
from ape_model.text.nano_tower import NanoText, NanoTokenizer
from ape_model.weights.registry import DEFAULT, find_model
from ape_model.weights.state_dict import load_weights
from ape_stream.devices import parse_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from ape_model.config import ApeConfig
    from ape_model.text.embedder import TextEncoder
    from ape_model.weights.registry import ModelFiles

__all__ = [
    "NanoTextEncoder",
    "build_network",
    "load",
    "load_network",
    "load_text_encoder",
    "open_embedder",
    "parse_pooling",
    "sizes_of",
    "text_dtype",
]

_BATCH: Final = 256  # prompts that nano's small tower takes at once: a few megabytes


def text_dtype(device: torch.device) -> torch.dtype:
    """Return the arithmetic of a text tower: half where it is fast, as the released ones ran."""
    return torch.float16 if device.type == "cuda" else torch.float32


def parse_pooling(name: str) -> Pooling:
    """Return the pooling a user names.

    Raises:
        VariantError: there is no such pooling.
    """
    if name not in set(Pooling):
        raise VariantError(f"no pooling {name!r}: choose one of {', '.join(Pooling)}")
    return Pooling(name)


class NanoTextEncoder:
    """Texts to vectors with nano's tower."""

    def __init__(self, tower: NanoText, words: Sequence[str]) -> None:
        self._tower = tower.eval()
        self._tokenizer = NanoTokenizer(words, tower.config)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Tensor:
        """Return (P, D) float32 vectors of length one, on the CPU.

        Raises:
            PromptTextError: a text has no letter and no digit, which is all nano can read.
        """
        rows = []
        for first in range(0, len(texts), _BATCH):
            try:
                ids = self._tokenizer(texts[first : first + _BATCH])
            except ValueError as error:
                raise PromptTextError(f"{error}, and nano reads nothing else") from error
            rows.append(self._tower(ids).float())
            if progress is not None:
                progress(min(first + _BATCH, len(texts)))
        return torch.cat(rows)


def load(model: str = DEFAULT, device: str = "auto") -> Ape:
    """Load a network by name, in float32, ready for inference.

    Example:
        >>> network = ape_model.load("nano", "cpu")
        >>> features = network.encode_image(torch.zeros(1, 3, 256, 256))

    Args:
        model: "nano", "street", a model that was imported or pulled, or the path of one.
        device: "auto" (the first GPU, else the CPU), "cpu", "cuda:1" ...

    Raises:
        ModelError: the model is not here, cannot be read, or the device is not.
    """
    return load_network(find_model(model), parse_device(device))


def sizes_of(files: ModelFiles) -> NanoConfig | ApeConfig:
    """The configuration of a model, with the canvas that it learnt on."""
    if files.variant != NANO.ape.name:
        return PRESETS[files.variant]
    if files.canvas is None:
        return NANO
    # It learnt on images of this long side, wide ones too.
    return replace(NANO, ape=replace(NANO.ape, canvas=files.canvas, wide_area=None))


def build_network(files: ModelFiles) -> Ape:
    """Build the network of a model, its weights random and its norms not folded."""
    sizes = sizes_of(files)
    return build_nano(sizes) if isinstance(sizes, NanoConfig) else Ape(sizes)


def load_network(files: ModelFiles, device: torch.device) -> Ape:
    """Load the vision side of a model, in float32, ready for inference.

    Raises:
        CheckpointError: the weights cannot be read or do not fit.
    """
    network = build_network(files)
    load_weights(network, files.vision)
    network.eval().requires_grad_(requires_grad=False)
    if isinstance(network.backbone, NanoBackbone):
        network.backbone.fold_norms()
    return network.to(device)


def load_text_encoder(
    files: ModelFiles, device: torch.device, dtype: torch.dtype, pooling: Pooling = Pooling.EOT
) -> TextEncoder:
    """Load the text tower of a model.

    Args:
        files: Of the model; its text weights must be here.
        device: Where the tower runs; nano's always runs on the CPU, in float32.
        dtype: Arithmetic of the tower.
        pooling: How word states become one vector; nano's tower has its own.

    Raises:
        PromptTextError: the text weights are not here.
        CheckpointError: they cannot be read or do not fit.
    """
    if files.text is None:
        raise PromptTextError(
            f"model {files.name} came without text weights: bring a bank"
            " (`ape-stream prompts embed`), or import the model again"
        )
    if files.text_tower not in TEXT_TOWERS:
        return _load_nano(files.text)
    # Made without memory and filled from the file: 0.7 billion weights are held once, not twice.
    with torch.device("meta"):
        tower = TextTower(TEXT_TOWERS[files.text_tower])
    tower = tower.to(dtype).to_empty(device=device)
    load_weights(tower, files.text)
    return ClipTextEncoder(tower, pooling)


def open_embedder(
    files: ModelFiles,
    device: torch.device,
    *,
    bank: Path | None = None,
    pooling: Pooling = Pooling.EOT,
    cache: Path | None = None,
) -> PromptEmbedder:
    """Make what turns a model's prompts into embeddings; loads no weights yet.

    Args:
        files: Of the model.
        device: Where the text tower would run.
        bank: File of embeddings that came with the model.
        pooling: How word states become one vector.
        cache: Folder of the shared cache; None for the user's own.

    Raises:
        BankError: the bank cannot be read, belongs to another model or has another width.
    """
    dtype = text_dtype(device)
    return PromptEmbedder(
        EmbeddingSpace(files.text_digest, str(dtype).removeprefix("torch."), pooling.value),
        (lambda: load_text_encoder(files, device, dtype, pooling)) if files.text else None,
        cache=EmbeddingCache(cache or cache_root()),
        bank=None if bank is None else _load_bank(bank, files),
    )


def _load_bank(path: Path, files: ModelFiles) -> EmbeddingFile:
    bank = EmbeddingFile.load(path)
    tower = TEXT_TOWERS.get(files.text_tower)
    width = NANO.text.hidden if tower is None else tower.out_width
    if bank.width != width:
        raise BankError(
            f"{path} holds embeddings of {bank.width} numbers and model {files.name} takes {width}:"
            " make it again with `ape-stream prompts embed` and this model"
        )
    return bank


def _load_nano(path: Path) -> NanoTextEncoder:
    tower = NanoText(NANO.text)
    load_weights(tower, path)
    with read_errors(path, CheckpointError, "install ape-stream again"):
        return NanoTextEncoder(tower, json.loads(read_metadata(path)["words"]))
