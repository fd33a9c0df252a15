"""What to look for: prompts, and the set of them that a run has."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from ape_stream.errors import PromptError
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Prompt", "PromptKind", "PromptSet", "check_threshold"]

_SHOWN_CHARS = 80
"""Of the texts, in one line."""
MAX_PROMPT_CHARS = 1_000
"""A longer prompt is refused: every text tower here reads at most 77 tokens of it."""


def check_threshold(threshold: float, what: str = "threshold") -> None:
    """Refuse a score threshold outside 0..1.

    Raises:
        PromptError: it is outside, or no number.
    """
    if not 0.0 <= threshold <= 1.0:
        raise PromptError(f"{what} is {threshold}, not within 0..1")


class PromptKind(StrEnum):
    """How a prompt meets the image (APE, section 3.2)."""

    VOCABULARY = "vocabulary"
    """A name: aligned with regions, never fused with the image (it goes by the zero token)."""
    SENTENCE = "sentence"
    """A description: fused with the image before alignment."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to find, named by text. Every prompt is independent of all others."""

    text: str
    """The words, whitespace-collapsed, 1..1000 characters."""
    kind: PromptKind | None = None
    """Vocabulary or sentence; None lets the model decide for this prompt alone."""
    stuff: bool = False
    """True for an amorphous region (sky, grass): all its regions are one instance."""
    threshold: float | None = None
    """Lowest score that is kept, 0..1; None takes the run's threshold."""

    def __post_init__(self) -> None:
        """Normalise whitespace and refuse what no text tower can read.

        Raises:
            PromptError: the text is empty, too long or not Unicode text, or the threshold is
                outside 0..1.
        """
        text = " ".join(self.text.split())
        if not text:
            raise PromptError("a prompt is empty: give at least one word")
        if len(text) > MAX_PROMPT_CHARS:
            raise PromptError(
                f"a prompt has {len(text)} characters, more than {MAX_PROMPT_CHARS}: shorten it"
                f" ({text[:40]!r}...)"
            )
        # Lone surrogates come from command lines that are not UTF-8; no file or message can hold
        # them.
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise PromptError(
                f"prompt {text!r} is not UTF-8: on a command line, set a locale that is, such as"
                " LC_ALL=C.UTF-8"
            )
        if "\0" in text:
            raise PromptError(f"prompt {text!r} cannot be written in any output")
        if self.threshold is not None:
            check_threshold(self.threshold, f"threshold of {text!r}")
        object.__setattr__(self, "text", text)

    @classmethod
    def from_dict(cls, given: object) -> Self:
        """Make a prompt from a table {text, kind, stuff, threshold} of TOML or JSON.

        Only `text` is required; a text alone stands for such a table. None means absent.

        Raises:
            PromptError: a key is unknown, a value has the wrong type or cannot be used.
        """
        return read_table(cls, given, "a prompt", short="text", error=PromptError)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The prompts of a run, in order; a detection's prompt id is a position in it."""

    prompts: tuple[Prompt, ...]
    """At least one prompt; no text twice."""

    def __post_init__(self) -> None:
        """Check that there is at least one prompt, and no text twice.

        Raises:
            PromptError: the set is empty or holds a text twice.
        """
        if not self.prompts:
            raise PromptError("no prompt given: name at least one thing to find")
        seen: set[str] = set()
        for prompt in self.prompts:
            if prompt.text in seen:
                raise PromptError(f"prompt {prompt.text!r} is given twice: name it once")
            seen.add(prompt.text)

    @classmethod
    def of(cls, prompts: str | Prompt | Iterable[str | Prompt | Mapping[str, Any]]) -> Self:
        """Make a set from a comma-separated line or from prompts, dropping repeated texts.

        Args:
            prompts: "red apple, dog face", a prompt, or texts, prompts and tables of
                `Prompt.from_dict` in any mixture. Only a line is split at commas: a text inside a
                list may hold commas of its own.

        Raises:
            PromptError: nothing is left, or a prompt is unusable.
        """
        if isinstance(prompts, Prompt):
            prompts = [prompts]
        elif isinstance(prompts, str):
            prompts = [part for part in prompts.split(",") if part.strip()]
        if not isinstance(prompts, Iterable) or isinstance(prompts, (bytes, Mapping)):
            raise PromptError(f"prompts are a text or a list, got {prompts!r:.80}")
        first: dict[str, Prompt] = {}
        for given in prompts:
            prompt = given if isinstance(given, Prompt) else Prompt.from_dict(given)
            first.setdefault(prompt.text, prompt)
        return cls(tuple(first.values()))

    def __str__(self) -> str:
        shown = textwrap.shorten(", ".join(self.texts), _SHOWN_CHARS, placeholder=" ...")
        return f"{shown} ({len(self)} prompts)" if shown.endswith(" ...") else shown

    def with_threshold(self, threshold: float | None) -> PromptSet:
        """The same prompts, with this threshold where they have none of their own."""
        if threshold is None:
            return self
        return PromptSet(
            tuple(p if p.threshold is not None else replace(p, threshold=threshold) for p in self)
        )

    @property
    def digest(self) -> str:
        """Stable name of the whole set (first 16 hex digits of a SHA-256)."""
        # No text holds a zero byte or a line end (see `Prompt`), so two sets never give the same
        # lines.
        lines = (f"{p.text}\0{p.kind}\0{p.stuff}\0{p.threshold}" for p in self.prompts)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    @property
    def texts(self) -> tuple[str, ...]:
        """The words of every prompt, in order."""
        return tuple(prompt.text for prompt in self.prompts)

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def __getitem__(self, prompt_id: int) -> Prompt:
        return self.prompts[prompt_id]
