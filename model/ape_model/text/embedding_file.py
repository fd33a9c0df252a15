"""Prompt embeddings in one file, for machines that carry no text tower (a "bank").

A robot that always looks for the same things needs their vectors and not the 0.25-1.4 GB network
that made them. The file is a safetensors file with one tensor, `embeddings` (P, D) float32, whose
metadata holds the texts, the text tower that encoded them, and a SHA-256 of all of that.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from safetensors import safe_open

from ape_model.errors import BankError
from ape_model.io.read_errors import read_errors
from ape_model.io.safetensors_io import raw_bytes, write_safetensors
from ape_model.text.cache import EmbeddingSpace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = ["EmbeddingFile"]

_FORMAT: Final = "ape-stream-prompts 1"
_ADVICE: Final = "make it again with `ape-stream prompts embed`"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingFile:
    """Texts and their embeddings."""

    texts: tuple[str, ...]
    """P clean texts, none twice."""
    embeddings: Tensor
    """(P, D) float32 on the CPU, finite, row by row the embedding of a text."""
    space: EmbeddingSpace
    """What encoded them."""
    names: frozenset[str] = frozenset()
    """Those of the texts that a model learnt as names, though they may have several words."""

    def __post_init__(self) -> None:
        """Check that rows and texts agree.

        Raises:
            BankError: they do not, a text is there twice, or a value is NaN or infinite.
        """
        rows = self.embeddings
        if rows.ndim != 2 or rows.dtype != torch.float32 or len(rows) != len(self.texts):
            raise BankError(
                f"a bank of {len(self.texts)} prompts holds {tuple(rows.shape)} {rows.dtype},"
                " not one float32 row each"
            )
        if len(set(self.texts)) != len(self.texts):
            raise BankError("a bank holds a prompt twice")
        broken = (~rows.isfinite().all(dim=1)).nonzero()
        if len(broken):
            text = self.texts[int(broken[0])]
            raise BankError(f"a bank holds NaN or infinite values, first for {text!r}")

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return self.embeddings.shape[1]

    def save(self, path: Path) -> None:
        """Write the file; a reader sees the old file or the new one, never a part.

        Raises:
            CheckpointError: the file cannot be written.
        """
        label = {
            "format": _FORMAT,
            "tower": self.space.tower,
            "dtype": self.space.dtype,
            "pooling": self.space.pooling,
            "texts": json.dumps(self.texts, ensure_ascii=False),
        }
        if self.names:
            label["names"] = json.dumps(sorted(self.names), ensure_ascii=False)
        label["sha256"] = _digest(label, self.embeddings)
        write_safetensors(path, {"embeddings": self.embeddings}, label)

    @classmethod
    def load(cls, path: Path) -> EmbeddingFile:
        """Read a file; one of before there were checksums is accepted with a warning.

        Raises:
            BankError: the file cannot be read, is damaged or is no bank.
        """
        with read_errors(path, BankError, _ADVICE):
            with safe_open(path, "pt") as file:
                label = file.metadata() or {}
                if label.get("format") != _FORMAT:
                    raise BankError(f"{path} is no bank: {_ADVICE}")
                rows = file.get_tensor("embeddings")
            # `read_errors` turns a missing key or a wrong JSON below into the same error.
            if "sha256" in label and label["sha256"] != _digest(label, rows):
                raise BankError(f"{path} is damaged (its checksum is wrong): {_ADVICE}")
            space = EmbeddingSpace(label["tower"], label["dtype"], label["pooling"])
            texts = _texts(label["texts"])
            names = frozenset(_texts(label.get("names", "[]")))
        try:
            bank = cls(texts, rows, space, names)
        except BankError as error:
            raise BankError(f"{path} cannot be used, {error}: {_ADVICE}") from error
        if "sha256" not in label:
            _log.warning("%s has no checksum, so damage goes unnoticed: %s", path, _ADVICE)
        return bank


def _digest(label: Mapping[str, str], rows: Tensor) -> str:
    """SHA-256 (hex) of everything that decides what the prompts find."""
    # Shape and dtype too: the same bytes in another shape are other vectors.
    digest = hashlib.sha256()
    # Banks of before there were names have the same checksum as ever.
    for key in ("tower", "dtype", "pooling", "texts", *(("names",) if "names" in label else ())):
        digest.update(f"{key} {label[key]}\n".encode())
    digest.update(f"{rows.dtype} {list(rows.shape)}\n".encode())
    digest.update(raw_bytes(rows))
    return digest.hexdigest()


def _texts(text: str) -> tuple[str, ...]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise TypeError("its texts are not a list of texts")
    return tuple(found)
