"""Nano's text tower: words and pieces of words in, one vector per prompt out.

What is unusual about it:
  * a word is its own row of a small table plus the mean of its hashed 3- and 4-letter pieces
    (Bojanowski et al. 2017), so that plurals, compounds and misspellings are near the word;
  * the vector of a prompt is the mean over its word states (the paper's sentence-level embedding);
  * it is trained alone, by distillation (`ape_model.training.text_tower`), and then frozen: trained
    together with the network, it collapses on a small world.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.config import NanoTextConfig

__all__ = ["NanoText", "NanoTokenizer", "WordIds", "split_words"]

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class WordIds:
    """Prompts as ids."""

    words: Tensor
    """(P, T) int64: row of the word table, 0 for an unknown word."""
    pieces: Tensor
    """(P, T, G) int64: rows of the piece table, 0 is padding."""
    mask: Tensor
    """(P, T) bool: True where there is a word."""


def split_words(text: str) -> list[str]:
    """Split a prompt into lower-case words without accents or punctuation.

    Args:
        text: What the user typed.

    Returns:
        The words in order; empty where the text holds no letter or digit.
    """
    # NFKD splits "é" into "e" and an accent, which is then left out.
    plain = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))


@lru_cache(maxsize=65536)
def _pieces(word: str, buckets: int, limit: int) -> tuple[int, ...]:
    """Hash the 3- and 4-letter pieces of `<word>` to rows 1..buckets."""
    # The brackets make a prefix or suffix another piece than the same letters inside a word. CRC-32
    # is the same on every machine and in every process; Python's own hash is not.
    marked = f"<{word}>"
    grams = [marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1)]
    return tuple(1 + zlib.crc32(g.encode()) % buckets for g in grams[:limit])


class NanoTokenizer:
    """Turns prompts into `WordIds`.

    Args:
        words: The words with a row of their own, in row order from row 1.
        config: Sizes of the tower.
    """

    def __init__(self, words: Sequence[str], config: NanoTextConfig) -> None:
        self.config = config
        self.rows = {word: row for row, word in enumerate(words[: config.words], start=1)}

    def __call__(self, prompts: Sequence[str]) -> WordIds:
        """Encode prompts; each is cut to `max_words` words.

        Args:
            prompts: P texts, each with at least one word.

        Returns:
            The ids, T = words of the longest prompt.

        Raises:
            ValueError: a prompt holds no word.
        """
        split = [split_words(p)[: self.config.max_words] for p in prompts]
        for prompt, words in zip(prompts, split, strict=True):
            if not words:
                raise ValueError(f"the prompt {prompt!r} holds no word")
        T = max((len(words) for words in split), default=1)
        ids = torch.zeros(len(split), T, dtype=torch.int64)
        pieces = torch.zeros(len(split), T, self.config.max_pieces, dtype=torch.int64)
        for p, words in enumerate(split):
            for t, word in enumerate(words):
                rows = _pieces(word, self.config.buckets, self.config.max_pieces)
                ids[p, t] = self.rows.get(word, 0)
                pieces[p, t, : len(rows)] = torch.tensor(rows)
        lengths = torch.tensor([len(words) for words in split])
        return WordIds(ids, pieces, torch.arange(T) < lengths[:, None])


class _Layer(nn.Module):
    """One pre-norm transformer layer over the words of a prompt."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.proj = nn.Linear(hidden, hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.fc1 = nn.Linear(hidden, 2 * hidden)
        self.fc2 = nn.Linear(2 * hidden, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (P, T, D) states to the same shape; `mask` (P, T) is True on words."""
        P, T, D = x.shape
        qkv = self.qkv(self.norm1(x)).view(P, T, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (P, heads, T, D / heads) each
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + self.proj(mixed.transpose(1, 2).reshape(P, T, D))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class NanoText(nn.Module):
    """The tower itself.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: NanoTextConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.words + 1, config.width)
        self.pieces = nn.Embedding(config.buckets + 1, config.width)
        self.lift = nn.Linear(config.width, config.hidden)
        self.positions = nn.Parameter(torch.zeros(config.max_words, config.hidden))
        self.layers = nn.ModuleList(
            _Layer(config.hidden, config.heads) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.hidden)
        self.out = nn.Linear(config.hidden, config.hidden)
        self._initialise()

    def _initialise(self) -> None:
        """Small weights; row 0 of both tables is zero, so that it adds nothing."""
        for table in (self.words, self.pieces):
            nn.init.normal_(table.weight, std=0.1)
            with torch.no_grad():
                table.weight[0] = 0
        nn.init.normal_(self.positions, std=0.02)

    def embed_words(self, ids: WordIds) -> Tensor:
        """Sum each word's own row and the mean of its pieces: (P, T, width)."""
        P, T, G = ids.pieces.shape
        # With `padding_idx`, the mean is over the real pieces alone.
        pieces = functional.embedding_bag(
            ids.pieces.view(P * T, G), self.pieces.weight, mode="mean", padding_idx=0
        ).view(P, T, -1)
        own = self.words(ids.words) * (ids.words > 0).unsqueeze(-1)  # (P, T, width)
        return own + pieces

    def forward(self, ids: WordIds) -> Tensor:
        """Encode prompts.

        Args:
            ids: P prompts.

        Returns:
            (P, hidden) float, each of length one.
        """
        x = self.lift(self.embed_words(ids)) + self.positions[: ids.words.shape[1]]  # (P, T, D)
        for layer in self.layers:
            x = layer(x, ids.mask)
        weight = ids.mask.unsqueeze(-1).to(x.dtype)  # (P, T, 1)
        pooled = (self.norm(x) * weight).sum(1) / weight.sum(1)  # (P, D)
        return functional.normalize(self.out(pooled), dim=-1)
