"""The words of a run as vectors: those to learn, and old words as negatives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from ape_model.config import NANO
from ape_model.loading import open_embedder
from ape_model.text.embedding_file import EmbeddingFile
from ape_stream.values.texts import clean_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ape_model.text.cache import EmbeddingSpace
    from ape_model.weights.registry import ModelFiles
    from ape_stream.datasets.instances import InstanceData

__all__ = ["TuneWords", "find_words"]

_TOO_NEAR: Final = {"nano": 0.55}
_TOO_NEAR_CLIP: Final = 0.9
"""Cosine from which an old word may mean the same as a new one, and is no negative: vectors of CLIP
towers lie closer together than those of nano's."""


@dataclass(frozen=True, slots=True, eq=False)
class TuneWords:
    """Words and their vectors."""

    texts: tuple[str, ...]
    """P clean texts: C main names of the classes, things first, then synonyms."""
    vectors: nn.Parameter
    """(P, D) float32; what a run in mode `prompt` learns."""
    truth: Tensor
    """(P, C) float32, 1 where a text names a class."""
    old: Tensor
    """(N, D) float32 vectors of further words that the model knows."""
    far: Tensor
    """(M,) int64 rows of `old` that mean none of the classes: negatives."""
    space: EmbeddingSpace
    """Which text tower made the vectors."""
    bank: EmbeddingFile | None
    """The bank that the user gave."""

    @property
    def main_vectors(self) -> Tensor:
        """(C, D) vectors of the main names."""
        return self.vectors[: self.truth.shape[1]]

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw the prompts of a step with torch's generator of the CPU.

        Returns:
            (P + n, D) vectors, and (P + n, C) their truth, zero for the `count` negatives at most.
        """
        rows = self.far[torch.randperm(len(self.far))[:count]]
        negatives = self.old[rows].to(self.vectors.device)
        truth = torch.cat([self.truth, self.truth.new_zeros(len(rows), self.truth.shape[1])])
        return torch.cat([self.vectors, negatives]), truth.to(self.vectors.device)

    def to(self, device: torch.device) -> TuneWords:
        """The same with the vectors that learn on a device."""
        return replace(self, vectors=nn.Parameter(self.vectors.detach().to(device)))

    def as_bank(self) -> EmbeddingFile:
        """The user's bank with the new vectors in it; those of other words are untouched."""
        learnt = dict(zip(self.texts, self.vectors.detach().cpu(), strict=True))
        kept: dict[str, Tensor] = {}
        names: frozenset[str] = frozenset()
        if self.bank is not None:
            kept = dict(zip(self.bank.texts, self.bank.embeddings, strict=True))
            names = self.bank.names
        whole = kept | learnt
        rows = torch.stack(list(whole.values()))
        return EmbeddingFile(tuple(whole), rows, self.space, names | frozenset(self.texts))


def find_words(data: InstanceData, files: ModelFiles, bank: Path | None) -> TuneWords:
    """Find the vectors of all words of a run.

    The text tower of a released model is not loaded: vectors come from the bank or from the cache.
    Nano's, which is small, is.

    Args:
        data: The classes.
        files: Of the model.
        bank: File of embeddings; None: the cache has them.

    Raises:
        PromptTextError: a class has no vector here; the message says how to make one.
        BankError: the bank cannot be read or is of another model.
    """
    small = files.variant == NANO.ape.name
    # Without its text weights, an embedder finds vectors and makes none.
    known = files if small else replace(files, text=None)
    embedder = open_embedder(known, torch.device("cpu"), bank=bank)
    pairs = _texts(data.names, data.synonyms)
    texts = tuple(pairs)
    vectors = embedder.embed(texts)
    truth = torch.zeros(len(texts), len(data.names))
    for row, classes in enumerate(pairs.values()):
        truth[row, classes] = 1
    file = None if bank is None else EmbeddingFile.load(bank)
    old = [*(() if file is None else file.texts), *sorted(files.vocabulary)]
    others = [text for text in dict.fromkeys(old) if text not in pairs]
    found = embedder.find(others)
    if small:
        found |= dict(zip(others, embedder.embed(others), strict=True)) if others else {}
    rows = torch.stack(list(found.values())) if found else vectors[:0]
    far = _far(rows, vectors, _TOO_NEAR.get(files.variant, _TOO_NEAR_CLIP))
    return TuneWords(texts, nn.Parameter(vectors), truth, rows, far, embedder.space, file)


def _texts(names: Sequence[str], synonyms: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Clean texts, main names first, and the classes that each of them names."""
    pairs: dict[str, list[int]] = {clean_text(name): [k] for k, name in enumerate(names)}
    for k, words in enumerate(synonyms):
        for word in words:
            classes = pairs.setdefault(clean_text(word), [])
            if k not in classes:
                classes.append(k)
    return pairs


def _far(old: Tensor, new: Tensor, too_near: float) -> Tensor:
    """(M,) rows of the (N, D) old vectors whose cosine to all (P, D) new ones is small."""
    unit = torch.nn.functional.normalize
    return ((unit(old, dim=1) @ unit(new, dim=1).T).amax(1) < too_near).nonzero()[:, 0]
