"""From what a user wrote to an answer: words with thresholds, ranges of time, an example."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ape_stream.batch.selection import parse_time
from ape_stream.errors import UsageError
from ape_stream.index.similar import Box, Within, like_box, like_object
from ape_stream.types import Prompt, PromptSet
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ape_stream.index import Answer, Index

__all__ = ["Question", "answer_of"]

_BOX: Final = re.compile(r"(?P<video>.+)#(?P<frame>\d+):(?P<box>[-\d.,\s]+)")
_TRACK: Final = re.compile(r"(?P<video>.+):(?P<track>\d+)")
_SIDES: Final = 4


@dataclass(frozen=True, slots=True)
class Question:
    """What the options of `ask` say."""

    words: Sequence[str] = ()
    prompts_file: Path | None = None
    thresholds: Sequence[str] = ()
    start: str | None = None
    end: str | None = None
    videos: list[str] | None = None
    like: str | None = None

    def range(self) -> tuple[float | None, float | None, list[str] | None]:
        """First time, last time and names of videos."""
        start = None if self.start is None else parse_time(self.start)
        end = None if self.end is None else parse_time(self.end)
        return start, end, self.videos


def answer_of(index: Index, question: Question) -> Answer:
    """Ask.

    Raises:
        UsageError: something given cannot be used.
    """
    start, end, videos = question.range()
    if question.like is not None:
        if question.words or question.prompts_file:
            raise UsageError("give words or --like, not both")
        if question.thresholds:
            raise UsageError("--like has no --threshold: similarities are no scores")
        return _similar(index, question.like, Within(start, end, videos))
    default, own = _thresholds(question.thresholds)
    prompts = _prompts(question, own)
    return index.ask(prompts, threshold=default, start_s=start, end_s=end, videos=videos)


def _prompts(question: Question, own: dict[str, float]) -> PromptSet:
    texts = [t.strip() for line in question.words for t in line.split(",") if t.strip()]
    if question.prompts_file is not None:
        try:
            lines = read_text(question.prompts_file).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"cannot read the prompts in {question.prompts_file}: {error}"
            ) from error
        texts += [t.strip() for t in lines if t.strip() and not t.startswith("#")]
    given = PromptSet.of(texts)
    if unknown := own.keys() - set(given.texts):
        raise UsageError(f"--threshold {min(unknown)}=...: no such word is asked")
    return PromptSet(tuple(Prompt(p.text, threshold=own.get(p.text)) for p in given))


def _thresholds(given: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """The threshold of all words, and those of single ones."""
    default: float | None = None
    own: dict[str, float] = {}
    for text in given:
        word, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise UsageError(f"--threshold {text}: give 0.5, or 'ladder=0.6'") from None
        if word.strip():
            own[" ".join(word.split())] = value
        else:
            default = value
    return default, own


def _similar(index: Index, given: str, within: Within) -> Answer:
    if match := _BOX.fullmatch(given):
        try:
            sides = [float(side) for side in match["box"].split(",")]
        except ValueError:
            sides = []
        if len(sides) != _SIDES:
            raise UsageError(f"--like {given}: a box is x1,y1,x2,y2 in pixels")
        box = Box(sides[0], sides[1], sides[2], sides[3])
        return like_box(index, match["video"], int(match["frame"]), box, within)
    if match := _TRACK.fullmatch(given):
        return like_object(index, match["video"], int(match["track"]), within)
    raise UsageError(f"--like {given}: give VIDEO#FRAME:x1,y1,x2,y2 or VIDEO:TRACK")
