"""A bank: prompt embeddings in one file, for machines that carry no text tower.

A robot that always looks for the same things needs their vectors and not the 0.25-1.4 GB network
that made them. The file is a safetensors file with one tensor, `embeddings` (P, D) float32, whose
metadata names the texts and the space they live in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError, safe_open

from ape_model.errors import BankError
from ape_model.io.safetensors_io import write_safetensors
from ape_model.text.cache import EmbeddingSpace

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["PromptBank"]

_FORMAT: Final = "ape-stream-prompts 1"


@dataclass(frozen=True, slots=True, eq=False)
class PromptBank:
    """Texts and their embeddings."""

    texts: tuple[str, ...]
    """P clean texts, none twice."""
    embeddings: Tensor
    """(P, D) float32 on the CPU, row by row the embedding of a text."""
    space: EmbeddingSpace
    """What encoded them."""

    def __post_init__(self) -> None:
        """Check that rows and texts agree.

        Raises:
            BankError: they do not, or a text is there twice.
        """
        rows = self.embeddings
        if rows.ndim != 2 or rows.dtype != torch.float32 or len(rows) != len(self.texts):
            raise BankError(
                f"a bank of {len(self.texts)} prompts holds {tuple(rows.shape)} {rows.dtype},"
                " not one float32 row each"
            )
        if len(set(self.texts)) != len(self.texts):
            raise BankError("a bank holds a prompt twice")

    def save(self, path: Path) -> None:
        """Write the bank; a reader sees the old file or the new one, never a part.

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
        write_safetensors(path, {"embeddings": self.embeddings}, label)

    @classmethod
    def load(cls, path: Path) -> PromptBank:
        """Read a bank.

        Raises:
            BankError: the file cannot be read or is no bank.
        """
        try:
            with safe_open(path, "pt") as file:
                label = file.metadata() or {}
                if label.get("format") != _FORMAT:
                    raise BankError(f"{path} is no bank: make one with `ape-stream prompts embed`")
                rows = file.get_tensor("embeddings")
            space = EmbeddingSpace(label["tower"], label["dtype"], label["pooling"])
            texts = tuple(str(text) for text in json.loads(label["texts"]))
        except FileNotFoundError:
            raise BankError(f"there is no file {path}") from None
        except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise BankError(
                f"{path} cannot be read ({error}): make it again with `ape-stream prompts embed`"
            ) from error
        return cls(texts, rows, space)
