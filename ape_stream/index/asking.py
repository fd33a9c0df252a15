"""`Index`: any words, asked of what is on disk; regions as a live run would have them."""

from __future__ import annotations

import logging
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ape_stream.errors import UsageError
from ape_stream.index.alignment import scores_of
from ape_stream.index.answer import SENTENCE, VOCABULARY, Answer, FoundFrame, Uncertain, numbered
from ape_stream.index.dropped.certainty import Selected, lost_logits
from ape_stream.index.levels_file import levels_of
from ape_stream.index.part import NO_PTS, DamagedPartError
from ape_stream.index.scan import Scanner, Words, logit_floor
from ape_stream.index.selection import NOTHING, Regions, select_pairs
from ape_stream.index.store import open_store
from ape_stream.index.vectors import Embeddings, is_sentence
from ape_stream.types import Instances, PromptSet
from ape_stream.values.prompts import check_threshold
from ape_stream.values.texts import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from ape_stream.index.layout import Video
    from ape_stream.index.levels import Levels
    from ape_stream.index.part import Part
    from ape_stream.index.scan import Hits
    from ape_stream.index.selection import Outline
    from ape_stream.index.store import Missing, Store
    from ape_stream.types import Prompt

__all__ = ["Index", "open_index"]

_log = logging.getLogger("ape_stream")
_WORDS_AT_ONCE: Final = 256
"""So many words are searched together: bounds of more would not stay in a cache."""


class Index:
    """An index that is open for questions.

    Args:
        store: The index on disk.
        bank: File of prompt embeddings that is asked first.

    Raises:
        ConfigError: the bank cannot be read, or is of another text tower.
    """

    def __init__(self, store: Store, bank: Path | None = None) -> None:
        self.store = store
        self._embeddings = Embeddings(store.manifest, bank)
        self._levels: dict[str, Levels] = {}

    def ask(
        self,
        words: str | Prompt | Iterable[str | Prompt | Mapping[str, Any]],
        *,
        threshold: float | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
        videos: Collection[str] | None = None,
    ) -> Answer:
        """Find words in all videos; see `Answer.exact` for what is certain.

        Args:
            words: As in `PromptSet.of`: "fire engine, ladder", or a list.
            threshold: Lowest score of words without one of their own, 0..1; None takes that of the
                index.
            start_s: Frames before it are left out, seconds on the clock of each video.
            end_s: Frames from it on are left out.
            videos: Names of the videos that are searched; None takes all.

        Raises:
            UsageError: a word, a threshold or a name of a video cannot be used.
            ModelError: a word is unknown and its text tower cannot be loaded.
        """
        return self.answered(lambda: self._ask(words, threshold, (start_s, end_s), videos))

    def answered(self, make: Callable[[], Answer]) -> Answer:
        """An answer of all that is not damaged: a part that turns out to be is left out."""
        while True:
            try:
                return make()
            except DamagedPartError as error:
                _log.warning("left out: %s", error)
                self.store = self.store.without(error.info, error.reason)

    def _ask(
        self,
        words: Any,
        threshold: float | None,
        between: tuple[float | None, float | None],
        videos: Collection[str] | None,
    ) -> Answer:
        prompts = self._prompts(words, threshold)
        parts = [_Asked(*one) for one in self.parts_within(*between, videos)]
        asked = self._words(prompts)
        modes = tuple(self._mode(prompt) for prompt in prompts)
        stuff = np.array([self._is_stuff(prompt) for prompt in prompts])
        frames: list[FoundFrame] = []
        recheck: list[Uncertain] = []
        for one, hits in zip(parts, self._search([one.part for one in parts], asked), strict=True):
            found = self._selected(one, hits)
            frames += self._frames(one.part, found, stuff)
            recheck += self._uncertain(one, asked, prompts, found)
        names = self._embeddings.names
        sentences = [prompt for prompt in prompts if is_sentence(prompt, names)]
        searched = sum(len(one.frames) for one in parts)
        missing = self.missing_within(*between, videos)
        return Answer(
            prompts=prompts,
            modes=modes,
            frames=numbered(frames),
            recheck=tuple(recheck),
            missing=missing,
            searched=searched,
            notes=(
                *_notes(sentences, nowhere=not searched and not missing),
                *_not_whole(self.store.videos[k] for k in {one.part.info.video for one in parts}),
            ),
        )

    def _prompts(self, words: Any, threshold: float | None) -> PromptSet:
        if threshold is not None:
            check_threshold(threshold)
        default = self.store.manifest.threshold if threshold is None else threshold
        return PromptSet.of(words).with_threshold(default)

    def _words(self, prompts: PromptSet) -> Words:
        vectors, biases = self.store.head.project(self._embeddings.of(prompts.texts))
        # All have one: `_prompts` filled it in.
        thresholds = np.array([prompt.threshold for prompt in prompts], np.float32)
        return Words(vectors, biases, thresholds)

    def _mode(self, prompt: Prompt) -> str:
        return SENTENCE if is_sentence(prompt, self._embeddings.names) else VOCABULARY

    def _is_stuff(self, prompt: Prompt) -> bool:
        return prompt.stuff or clean_text(prompt.text) in self.store.manifest.stuff

    def _video_ids(self, names: Collection[str] | None) -> set[int] | None:
        if names is None:
            return None
        ids = {video.name: video.id for video in self.store.videos.values()}
        for name in names:
            if name not in ids:
                known = ", ".join(ids)
                raise UsageError(f"no video is called {name!r}; there are: {known:.200}")
        return {ids[name] for name in names}

    def objects_in(self, video: int, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Boxes (R, 4) in pixels and tracks (R,) of the queries kept of one frame."""
        for part in self.store.parts:
            if part.info.video != video:
                continue
            for position in np.flatnonzero(part.frames.index == index).tolist():
                rows = part.rows_of(position)
                height, width = part.size(position)
                scale = np.array([width, height, width, height], np.float32)
                return part.rows.box[rows] * scale, part.rows.track[rows]
        return np.zeros((0, 4), np.float32), np.zeros(0, np.int64)

    def frames(
        self,
        start_s: float | None = None,
        end_s: float | None = None,
        videos: Collection[str] | None = None,
    ) -> Iterator[FoundFrame]:
        """All frames of the index in a range of time, without regions."""
        for part, chosen in self.parts_within(start_s, end_s, videos):
            for position in chosen.tolist():
                yield self.found_frame(
                    part, position, NOTHING, partial(Instances.empty, part.size(position))
                )

    def parts_within(
        self, start_s: float | None, end_s: float | None, videos: Collection[str] | None
    ) -> Iterator[tuple[Part, NDArray[np.intp]]]:
        """Parts, and the positions of their frames in a range of time; arguments as of `ask`."""
        start, end = _range(start_s, end_s)
        for part in self.store.parts_between(start, end, self._video_ids(videos)):
            yield part, part.frames_between(start, end)

    def missing_within(
        self, start_s: float | None, end_s: float | None, videos: Collection[str] | None
    ) -> tuple[Missing, ...]:
        """The parts of this range that could not be read; arguments as of `ask`."""
        start, end = _range(start_s, end_s)
        chosen = self._video_ids(videos)
        return tuple(
            one
            for one in self.store.missing
            if (chosen is None or one.info.video in chosen)
            and one.info.end_s >= start
            and one.info.start_s < end
        )

    def levels(self, part: Part) -> Levels:
        """The bounds of a part's rows, made where they are not there yet."""
        path = part.info.path
        if path not in self._levels:
            self._levels[path] = levels_of(self.store.root, part)
        return self._levels[path]

    def _search(self, parts: Sequence[Part], words: Words) -> list[list[Hits]]:
        """For each part its hits, by chunks of words."""
        full = [part for part in parts if part.info.rows]
        scanner = Scanner(full, [self.levels(part) for part in full], self.store.head)
        by_part: dict[str, list[Hits]] = {part.info.path: [] for part in parts}
        for first in range(0, len(words.vectors), _WORDS_AT_ONCE):
            own = slice(first, first + _WORDS_AT_ONCE)
            chunk = Words(words.vectors[own], words.biases[own], words.thresholds[own])
            for part, hits in zip(full, scanner.search(chunk), strict=True):
                by_part[part.info.path].append(hits.after(first))
        return [by_part[part.info.path] for part in parts]

    def _selected(self, asked: _Asked, chunks: list[Hits]) -> Selected:
        """What becomes a region in the frames of one part: frame by frame, strongest first."""
        if not chunks:
            return Selected(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0, np.float32))
        part = asked.part
        rows = np.concatenate([hits.rows for hits in chunks])
        words = np.concatenate([hits.words for hits in chunks])
        scores = scores_of(np.concatenate([hits.logits for hits in chunks]))
        order = np.lexsort((words, rows))
        order = order[np.isin(part.rows.frame[rows[order]], asked.frames)]
        rows, words, scores = rows[order], words[order], scores[order]
        frames = part.rows.frame[rows].astype(np.int64)
        chosen = select_pairs(
            frames, words, scores, part.rows.box[rows], self.store.manifest.per_prompt
        )
        return Selected(rows, words, scores).take(chosen)

    def _frames(
        self, part: Part, found: Selected, stuff: NDArray[np.bool_]
    ) -> Iterator[FoundFrame]:
        """What was found in the frames of one part."""
        frames = part.rows.frame[found.rows]
        borders = np.flatnonzero(np.diff(frames, prepend=-1, append=-1))
        for first, last in pairwise(borders.tolist()):
            own = slice(first, last)
            part.check_masks(int(frames[first]))
            regions = Regions(part, found.rows[own], found.words[own], found.scores[own], stuff)
            outline = regions.outline()
            if len(outline.scores):
                yield self.found_frame(part, int(frames[first]), outline, regions.instances)

    def found_frame(
        self,
        part: Part,
        position: int,
        found: Outline,
        make: Callable[[], Instances],
    ) -> FoundFrame:
        """A frame of a part, by its position there, with what was found in it."""
        frames = part.frames
        pts = int(frames.pts[position])
        return FoundFrame(
            video=self.store.videos[part.info.video],
            index=int(frames.index[position]),
            time_s=float(frames.time_s[position]),
            pts=None if pts == NO_PTS else pts,
            file=frames.file[position],
            size=part.size(position),
            scores=found.scores,
            prompt_ids=found.prompt_ids,
            objects=found.objects,
            make=make,
        )

    def _uncertain(
        self, asked: _Asked, words: Words, prompts: PromptSet, found: Selected
    ) -> Iterator[Uncertain]:
        """Frames of which a dropped query may be a region of a word."""
        part, limit = asked.part, self.store.manifest.per_prompt
        bounds = lost_logits(part, asked.frames, words, found, limit)  # (f, P)
        over = ~(bounds < logit_floor(words.thresholds))
        over[:, [self._mode(prompt) == SENTENCE for prompt in prompts]] = False  # never exact
        video = self.store.videos[part.info.video]
        for at in np.flatnonzero(over.any(axis=1)).tolist():
            ids = np.flatnonzero(over[at])
            worst = ids[bounds[at, ids].argmax()]
            score = float(scores_of(bounds[at, worst]))
            others = len(ids) - 1
            more = f" and {others} more word{'s' if others > 1 else ''}" if others else ""
            position = asked.frames[at]
            yield Uncertain(
                video,
                int(part.frames.index[position]),
                float(part.frames.time_s[position]),
                tuple(ids.tolist()),
                f"a query that was not kept may score up to {score:.2f} for"
                f" {prompts[int(worst)].text!r}{more}",
            )


class _Asked:
    """A part, and the frames of it that are asked for."""

    def __init__(self, part: Part, frames: NDArray[np.intp]) -> None:
        self.part = part
        self.frames = frames


def _range(start_s: float | None, end_s: float | None) -> tuple[float, float]:
    start = float("-inf") if start_s is None else start_s
    end = float("inf") if end_s is None else end_s
    if not start < end:
        raise UsageError(f"the range of time is empty: it ends at {end:g} s, begins at {start:g} s")
    return start, end


def _notes(sentences: Sequence[Prompt], *, nowhere: bool) -> Iterator[str]:
    if nowhere:
        yield "no frame of the index is in this range of time"
    for prompt in sentences:
        yield (
            f"{prompt.text!r} is a sentence, which a full run fuses with the image first: answered"
            " as a name; recheck runs the network on its best frames"
        )


def _not_whole(videos: Iterable[Video]) -> Iterator[str]:
    for video in sorted(videos, key=lambda one: one.id):
        if video.problem is not None:
            yield f"{video.name} is not whole: {video.problem}"


def open_index(path: str | Path, *, bank: str | Path | None = None) -> Index:
    """Open an index for questions; nothing but its tables is read.

    A part that is damaged, or of other weights, is left out and named in `Answer.missing`.

    Args:
        path: Its folder.
        bank: File of prompt embeddings (`ape-stream prompts embed`) that is asked first.

    Raises:
        ConfigError: there is no index, or what all parts need is damaged.
        PluginError: the extra `index` is not installed.
    """
    return Index(open_store(path), None if bank is None else Path(bank))
