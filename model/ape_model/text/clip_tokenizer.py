"""The byte-pair tokenizer of CLIP (Radford et al. 2021, section 2.4): text to token ids.

Text is cleaned, made lower case and split into words by a pattern; each word is spelled in bytes,
and pairs of neighbouring symbols are merged, the pair learnt earliest first. Any text has an
encoding, since single bytes are in the vocabulary.

Two unusual things are kept, because the released towers were trained with them: the last byte of a
word carries the mark "</w>", and a typed "<end_of_text>" IS the end-of-text token.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import regex
import torch

from ape_stream.values.texts import clean_text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONTEXT_LENGTH", "VOCABULARY_SIZE", "ClipTokenizer"]

CONTEXT_LENGTH: Final = 77
"""Largest number of tokens of a text, with start and end."""
VOCABULARY_SIZE: Final = 49_408
"""256 bytes, 256 bytes that end a word, 48,894 merges, start and end."""
_MERGES: Final = VOCABULARY_SIZE - 2 * 256 - 2
"""What the vocabulary has beyond bytes, bytes that end a word, start and end."""
_START: Final = "<start_of_text>"
_END: Final = "<end_of_text>"
_WORD_END: Final = "</w>"
_WORDS_KEPT: Final = 16_384  # spelled words kept in memory, about 3 MB

_WORD_PATTERN: Final = regex.compile(
    rf"{_START}|{_END}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+",
    regex.IGNORECASE,
)


def _byte_letters() -> dict[int, str]:
    """Return a printable letter for each of the 256 bytes, in the vocabulary's own order.

    Printable bytes are their own letter; the others get the letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    hidden = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(0x100 + n) for n, byte in enumerate(hidden)}


def _read_merges() -> list[tuple[str, str]]:
    packed = (
        resources.files("ape_model").joinpath("assets/bpe_simple_vocab_16e6.txt.gz").read_bytes()
    )
    # The first line is a comment; merges beyond the vocabulary's size are not used.
    lines = gzip.decompress(packed).decode("utf-8").split("\n")[1 : 1 + _MERGES]
    return [(first, second) for first, second in map(str.split, lines)]


class ClipTokenizer:
    """Turns text into CLIP token ids; may be shared between threads."""

    def __init__(self) -> None:
        self._letters = _byte_letters()
        merges = _read_merges()
        # The order of symbols is the vocabulary: a symbol's id is its position.
        symbols = [*self._letters.values(), *(f"{x}{_WORD_END}" for x in self._letters.values())]
        symbols += [*("".join(pair) for pair in merges), _START, _END]
        self._ids = {symbol: number for number, symbol in enumerate(symbols)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._spell = lru_cache(maxsize=_WORDS_KEPT)(self._spell_word)

    @property
    def start_id(self) -> int:
        """Id of the mark before the first word."""
        return self._ids[_START]

    @property
    def end_id(self) -> int:
        """Id of the mark after the last word; the largest of all ids."""
        return self._ids[_END]

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, not truncated, without start and end."""
        ids: list[int] = []
        for word in _WORD_PATTERN.findall(clean_text(text)):
            ids += self._spell(word)
        return ids

    def __call__(self, texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> torch.Tensor:
        """Return (P, context_length) int64 ids: start, words, end, zeros.

        A longer text is truncated; its last token is the end mark.
        """
        rows = torch.zeros(len(texts), context_length, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = [self.start_id, *self.encode(text)[: context_length - 2], self.end_id]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def _spell_word(self, word: str) -> tuple[int, ...]:
        if word in (_START, _END):
            return (self._ids[word],)
        # Merges are ranked by when they were learnt. The earliest one that occurs is applied until
        # none is left; an unknown pair ranks behind all (`_MERGES`).
        symbols = [self._letters[byte] for byte in word.encode("utf-8")]
        symbols[-1] += _WORD_END
        while len(symbols) > 1:
            best = min(pairwise(symbols), key=lambda pair: self._ranks.get(pair, _MERGES))
            if best not in self._ranks:
                break
            symbols = _merge(symbols, best)
        return tuple(self._ids[symbol] for symbol in symbols)


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of `pair`, from left to right."""
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged
