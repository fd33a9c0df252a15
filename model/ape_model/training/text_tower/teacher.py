"""A pretrained sentence encoder (MiniLM, a 6-layer BERT) read from a local folder: training only.

The folder is that of `sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0): `model.safetensors`
and `vocab.txt`. Nothing of it ships; the tiny tower learns from its vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ape_model.errors import CheckpointError, ModelMissingError
from ape_model.io.safetensors_io import read_safetensors
from ape_model.text.nano_tower import split_words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Teacher"]

_HEADS = 12
_LAYERS = 6
_EPS = 1e-12
_WORDS = "embeddings.word_embeddings.weight"
_CLS, _SEP, _UNKNOWN = 101, 102, 100


class Teacher:
    """Sentence vectors of MiniLM.

    Args:
        folder: holds `model.safetensors` and `vocab.txt`.

    Raises:
        ModelMissingError: a file is not there.
        CheckpointError: the weights cannot be read or are of another network.
    """

    def __init__(self, folder: Path) -> None:
        for name in ("model.safetensors", "vocab.txt"):
            if not (folder / name).is_file():
                raise ModelMissingError(f"{folder / name} is missing; point to an all-MiniLM-L6-v2")
        self.weights, _ = read_safetensors(folder / "model.safetensors")
        if _WORDS not in self.weights:
            raise CheckpointError(f"{folder} holds no MiniLM: {_WORDS} is missing")
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self.rows = {piece: row for row, piece in enumerate(lines)}

    def vocabulary(self) -> list[str]:
        """List whole words of at least three letters, the frequent ones first."""
        return [w for w in self.rows if w.isascii() and w.isalpha() and len(w) >= 3]

    def _split(self, word: str) -> list[int]:
        """Cut a word into the longest known pieces (WordPiece)."""
        ids: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else "##" + word[start:end]
                if piece in self.rows:
                    ids.append(self.rows[piece])
                    start = end
                    break
            else:
                return [_UNKNOWN]
        return ids

    def _tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = [
            [_CLS, *[i for w in split_words(t) for i in self._split(w)][:62], _SEP] for t in texts
        ]
        T = max(len(r) for r in rows)
        ids = torch.tensor([r + [0] * (T - len(r)) for r in rows])
        return ids, torch.arange(T) < torch.tensor([len(r) for r in rows])[:, None]

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.layer_norm(x, x.shape[-1:], weight, bias, _EPS)

    def _layer(self, x: Tensor, mask: Tensor, name: str) -> Tensor:
        B, T, D = x.shape
        q, k, v = (
            self._linear(x, f"{name}.attention.self.{part}")
            .view(B, T, _HEADS, D // _HEADS)
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        seen = self._linear(seen.transpose(1, 2).reshape(B, T, D), f"{name}.attention.output.dense")
        x = self._norm(x + seen, f"{name}.attention.output.LayerNorm")
        wide = functional.gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._norm(
            x + self._linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm"
        )

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Encode texts, mean over word states.

        Args:
            texts: N texts.
            batch: texts at once.

        Returns:
            (N, 384) float32 of length one.
        """
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = torch.empty(len(texts), self.weights[_WORDS].shape[1])
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            out[rows] = self._encode([texts[i] for i in rows])
        return out

    def _encode(self, texts: Sequence[str]) -> Tensor:
        ids, mask = self._tokens(texts)
        x = (
            self.weights[_WORDS][ids]
            + self.weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
            + self.weights["embeddings.token_type_embeddings.weight"][0]
        )
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(_LAYERS):
            x = self._layer(x, mask, f"encoder.layer.{layer}")
        weight = mask.unsqueeze(-1).float()
        return functional.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)
