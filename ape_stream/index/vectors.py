"""Embeddings of words, as NumPy arrays: from a bank, the cache of prompts, or the text tower.

The files are those of `ape_model.text`; reading them here keeps torch out of a process whose words
are all known. Only an unknown word loads the text tower, and never the network.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open

from ape_stream.errors import ConfigError, PromptError
from ape_stream.plugins import load
from ape_stream.protocols import EmbedsTexts
from ape_stream.values.prompts import PromptKind
from ape_stream.values.texts import clean_text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from ape_stream.index.layout import Manifest
    from ape_stream.types import Prompt

__all__ = ["Bank", "Embeddings", "is_sentence", "read_bank"]

PERCEIVER: Final = "ape"
"""The plugin whose text tower encodes what is unknown."""
_CACHE_FORMAT: Final = "1"
_BANK_FORMAT: Final = "ape-stream-prompts 1"
_log = logging.getLogger("ape_stream")


def is_sentence(prompt: Prompt, names: Collection[str]) -> bool:
    """Whether a live run would fuse a prompt with the image; as `ape_model.text.embedder.classify`.

    Args:
        prompt: The prompt.
        names: Clean texts that the network, or a bank, knows as names.
    """
    if prompt.kind is not None:
        return prompt.kind is PromptKind.SENTENCE
    clean = clean_text(prompt.text)
    return " " in clean and clean not in names


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Embeddings of texts from one file."""

    tower: str
    """SHA-256 (hex) of the text tower that made them."""
    rows: dict[str, NDArray[np.float32]]
    """(D,) of each clean text."""
    names: frozenset[str]
    """Clean texts that a model learnt as names."""


def read_bank(path: Path) -> Bank:
    """Read what `ape-stream prompts embed` wrote.

    Raises:
        ConfigError: it cannot be read, is damaged or is no bank.
    """
    try:
        with safe_open(path, "np") as file:
            label: dict[str, str] = file.metadata() or {}
            if label.get("format") != _BANK_FORMAT:
                raise ConfigError(f"{path} is no bank: make one with `ape-stream prompts embed`")
            rows: NDArray[np.float32] = file.get_tensor("embeddings")
        if label.get("sha256") not in (None, _bank_digest(label, rows)):
            raise ConfigError(f"{path} is damaged: make it again with `ape-stream prompts embed`")
        texts, names = json.loads(label["texts"]), json.loads(label.get("names", "[]"))
        return Bank(label["tower"], dict(zip(texts, rows, strict=True)), frozenset(names))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"cannot read the bank {path}: {error}") from error


def _bank_digest(label: dict[str, str], rows: NDArray[np.float32]) -> str:
    digest = hashlib.sha256()
    for key in ("tower", "dtype", "pooling", "texts", *(("names",) if "names" in label else ())):
        digest.update(f"{key} {label[key]}\n".encode())
    digest.update(f"torch.{rows.dtype} {list(rows.shape)}\n".encode())
    digest.update(np.ascontiguousarray(rows, "<f4").tobytes())
    return digest.hexdigest()


def _cache_root() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ape_stream" / "prompts"


@dataclass(eq=False)
class Embeddings:
    """Embeddings for one index; what was found once stays in memory.

    Args:
        manifest: Of the index: names its text tower.
        bank: A file that is asked first.

    Raises:
        ConfigError: the bank cannot be read, or is of another text tower.
    """

    manifest: Manifest
    bank: Path | None = None
    names: frozenset[str] = field(init=False)
    """Clean texts that are names, though they may have several words."""

    def __post_init__(self) -> None:
        """Read the bank."""
        self._known: dict[str, NDArray[np.float32]] = {}
        self.names = frozenset(self.manifest.names)
        if self.bank is not None:
            bank = read_bank(self.bank)
            if bank.tower != self.manifest.text_tower:
                raise ConfigError(
                    f"{self.bank} was made by another text tower than the index: make it again"
                    f" with `ape-stream prompts embed` and model {self.manifest.model}"
                )
            self._known |= bank.rows
            self.names |= bank.names

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The (P, D) embeddings of P texts, rounded to the arithmetic of the network.

        Raises:
            PromptError: a text has no words, or is unknown and there is no text tower.
            ModelError: the text tower cannot be loaded.
        """
        clean = [_with_words(text) for text in texts]
        unknown = []
        for text in dict.fromkeys(clean):
            if text not in self._known:
                row = self._cached(text)
                if row is None:
                    unknown.append(text)
                else:
                    self._known[text] = row
        if unknown:
            self._known |= zip(unknown, self._encoded(unknown), strict=True)
        return _rounded(np.stack([self._known[text] for text in clean]), self.manifest.dtype)

    def _cached(self, text: str) -> NDArray[np.float32] | None:
        manifest = self.manifest
        space = {
            "tower": manifest.text_tower,
            "dtype": manifest.text_dtype,
            "pooling": manifest.text_pooling,
            "text": text,
        }
        key = hashlib.sha256("\0".join((_CACHE_FORMAT, *space.values())).encode()).hexdigest()
        path = _cache_root() / key[:2] / f"{key}.safetensors"
        try:
            with safe_open(path, "np") as file:
                label: dict[str, str] = file.metadata() or {}
                row: NDArray[np.float32] = file.get_tensor("embedding")
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            _log.warning("the cached prompt %s is damaged: %s", path, error)
            return None
        right = {
            "format": _CACHE_FORMAT,
            **space,
            "sha256": hashlib.sha256(row.tobytes()).hexdigest(),
        }
        if label != right:
            _log.warning("the cached prompt %s does not match its checksum", path)
            return None
        return row

    def _encoded(self, texts: list[str]) -> NDArray[np.float32]:
        factory: Any = load("perceivers", PERCEIVER)
        manifest = self.manifest
        if not isinstance(factory, EmbedsTexts):
            raise PromptError(f"no embedding of {texts[0]!r} here: bring a bank with --bank")
        rows, tower = factory.embed_texts(texts, model=manifest.model, dtype=manifest.text_dtype)
        if tower != manifest.text_tower:
            raise ConfigError(
                f"model {manifest.model} here has another text tower than the index: bring a bank"
                " (`ape-stream prompts embed` where the index was made)"
            )
        return rows


def _rounded(rows: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    if dtype == "float16":
        return rows.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":  # the upper half of float32, to the nearest, of two the even one
        bits = np.ascontiguousarray(rows).view(np.uint32)
        half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return ((bits + half) & np.uint32(0xFFFF0000)).view(np.float32)
    return rows


def _with_words(text: str) -> str:
    if not (clean := clean_text(text)):
        raise PromptError(f"the prompt {text!r} has no words: give at least one")
    return clean
