"""From prompts to what the network takes: a kind and an embedding of every prompt on its own.

A prompt is a *vocabulary* name, which meets the image only when regions are named, or a *sentence*,
which is fused with the image first (Shen et al. 2024, section 3.2). Embeddings are looked up in an
embedding file (bank), in memory and on disk; only the others are encoded, and only then the text
tower is loaded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Literal, Protocol

import torch

from ape_model.errors import BankError, PromptTextError
from ape_stream.values.texts import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torch import Tensor

    from ape_model.text.cache import EmbeddingCache, EmbeddingSpace
    from ape_model.text.embedding_file import EmbeddingFile

__all__ = [
    "SENTENCE",
    "VOCABULARY",
    "PromptEmbedder",
    "PromptKind",
    "TextEncoder",
    "classify",
]

PromptKind = Literal["vocabulary", "sentence"]
"""How a prompt meets the image; the values of `ape_stream.PromptKind`."""
VOCABULARY: Final = "vocabulary"
"""A name: aligned with regions, never fused with the image."""
SENTENCE: Final = "sentence"
"""A description: fused with the image before alignment."""

_MEMORY_LIMIT: Final = 16_384  # embeddings of 4 KB: 64 MB
_CHUNK: Final = 256  # prompts between two saves: an interruption loses at most these
_NAMED: Final = 3  # prompts listed in an error message


class TextEncoder(Protocol):
    """Turns texts into vectors."""

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Tensor:
        """Return (P, D) float32 on the CPU for P texts; `progress` gets how many are done."""
        ...


def classify(
    texts: Sequence[str],
    given: Sequence[str | None],
    vocabulary: Collection[str] = (),
    *,
    official: bool = False,
) -> tuple[PromptKind, ...]:
    """Decide for every prompt on its own whether it is a name or a sentence.

    A text of several words is a sentence, unless the model learnt it as a name.

    Args:
        texts: P prompts.
        given: P kinds that the user chose, None where the text decides.
        vocabulary: Clean texts of the names that the model was trained on.
        official: Classify as the official code: one space in any prompt makes all of them
            sentences.

    Raises:
        PromptTextError: there is no such kind, or one is given in official mode, which has none.
    """
    if official:
        for text, kind in zip(texts, given, strict=True):
            if kind is not None:
                raise PromptTextError(
                    f"official mode classifies all prompts as one: leave out the kind of {text!r}"
                )
        spaced = any(" " in text.strip() for text in texts)  # "traffic light" makes all sentences
        return (SENTENCE if spaced else VOCABULARY,) * len(texts)
    return tuple(
        _kind_of(clean_text(text), vocabulary) if kind is None else _checked_kind(kind)
        for text, kind in zip(texts, given, strict=True)
    )


def _kind_of(clean: str, vocabulary: Collection[str]) -> PromptKind:
    if " " in clean and clean not in vocabulary:
        return SENTENCE
    return VOCABULARY


def _checked_kind(kind: str) -> PromptKind:
    for known in (VOCABULARY, SENTENCE):
        if kind == known:
            return known
    raise PromptTextError(f"no kind of prompt {kind!r}: choose {VOCABULARY} or {SENTENCE}")


class PromptEmbedder:
    """Finds or makes the embedding of any text; called from one thread.

    Args:
        space: Of the model's text tower; a key of the cache, and checked against the bank.
        load: Loads the text tower; called at most once, and only for an unknown text. None if there
            are no text weights.
        cache: Embeddings on disk; None: in memory only.
        bank: Embeddings from a file.

    Raises:
        BankError: the bank was made by another text tower.
    """

    def __init__(
        self,
        space: EmbeddingSpace,
        load: Callable[[], TextEncoder] | None,
        *,
        cache: EmbeddingCache | None = None,
        bank: EmbeddingFile | None = None,
    ) -> None:
        if bank is not None and bank.space.tower != space.tower:
            raise BankError(
                f"the bank was made by text tower {bank.space.tower[:12]} and this model has"
                f" {space.tower[:12]}: make it again with `ape-stream prompts embed` and this model"
            )
        self.space = space
        self._load = load
        self._encoder: TextEncoder | None = None
        self._cache = cache
        self._bank = {} if bank is None else dict(zip(bank.texts, bank.embeddings, strict=True))
        self.names: frozenset[str] = frozenset() if bank is None else bank.names
        """Clean texts of the bank that were learnt as names."""
        self._memory: OrderedDict[str, Tensor] = OrderedDict()

    def embed(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """Return the (P, D) float32 embeddings of P >= 1 texts, on the CPU, not normalised.

        Args:
            texts: Prompts, not empty; case and spacing make no difference.
            progress: Called with (done, total) while unknown texts are encoded.

        Raises:
            PromptTextError: a text has no words, or is unknown and there is no text tower.
            ModelError: the text tower cannot be loaded.
        """
        clean = [_checked(text) for text in texts]
        # All vectors are collected first: `_remember` may drop some of them from memory again.
        found: dict[str, Tensor] = {}
        for text in dict.fromkeys(clean):
            vector = self._find(text)
            if vector is not None:
                found[text] = vector
        missing = [text for text in dict.fromkeys(clean) if text not in found]
        if missing:
            found |= self._encode(missing, progress)
        self._remember(found)
        return torch.stack([found[text] for text in clean])

    def find(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the (D,) float32 embeddings of those clean texts that need no text tower."""
        found = {text: self._find(text) for text in texts}
        return {text: vector for text, vector in found.items() if vector is not None}

    def _find(self, text: str) -> Tensor | None:
        for known in (self._bank, self._memory):
            if text in known:
                return known[text]
        return None if self._cache is None else self._cache.get(self.space, text)

    def _encode(
        self, texts: list[str], progress: Callable[[int, int], None] | None
    ) -> dict[str, Tensor]:
        encoder = self._tower(texts)
        # Neighbours of similar length share a batch of the tower.
        texts = sorted(texts, key=len)
        made: dict[str, Tensor] = {}
        for first in range(0, len(texts), _CHUNK):
            chunk = texts[first : first + _CHUNK]
            for text, vector in zip(chunk, encoder.encode(chunk), strict=True):
                made[text] = vector.clone()  # a view would keep the whole batch in memory
                if self._cache is not None:
                    self._cache.put(self.space, text, made[text])
            if progress is not None:
                progress(len(made), len(texts))
        if self._cache is not None:
            self._cache.prune()
        return made

    def _tower(self, wanted: list[str]) -> TextEncoder:
        if self._load is None:
            named = ", ".join(repr(text) for text in wanted[:_NAMED])
            more = f" and {len(wanted) - _NAMED} more" if len(wanted) > _NAMED else ""
            raise PromptTextError(
                f"no embedding of {named}{more} and no text weights here: embed them where the"
                " weights are with `ape-stream prompts embed` and bring the bank"
            )
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder

    def _remember(self, found: dict[str, Tensor]) -> None:
        for text, vector in found.items():
            self._memory[text] = vector
            self._memory.move_to_end(text)  # the least recently used one is at the front
        while len(self._memory) > _MEMORY_LIMIT:
            self._memory.popitem(last=False)


def _checked(text: str) -> str:
    clean = clean_text(text)
    if not clean:
        raise PromptTextError(f"the prompt {text!r} has no words: give at least one")
    return clean
