"""What an index answers: frames with regions, tracks of them, and what is not certain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from ape_stream.index.layout import Video
    from ape_stream.index.store import Missing
    from ape_stream.types import Instances, Mask, Prompt, PromptSet

__all__ = ["Answer", "AnswerTrack", "FoundFrame", "Uncertain", "numbered"]

GAP_S: Final = 1.0
"""Seconds without a frame of a track that end a range of time."""


@dataclass(frozen=True, eq=False)
class FoundFrame:
    """A frame in which something was found."""

    video: Video
    """Its video."""
    index: int
    """Position in the video from 0."""
    time_s: float
    """Seconds."""
    pts: int | None
    """In units of the video's time base; None where there is none."""
    file: str | None
    """The image file it was read from; None for videos."""
    size: tuple[int, int]
    """Height and width, pixels."""
    scores: NDArray[np.float32]
    """(N,) 0..1."""
    prompt_ids: NDArray[np.int64]
    """(N,) positions in `Answer.prompts`."""
    objects: NDArray[np.int64]
    """(N,) tracks of the index, the same for any words: 0 is on none, -1 a union of stuff."""
    make: Callable[[], Instances]
    """Makes the regions with their masks, in this order."""
    track_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(N,) from 1, unique in the video and for the word; 0 is on no track."""

    def instances(self) -> Instances:
        """The regions with masks, made when called."""
        return self.make().with_track_ids(self.track_ids)

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """(N, 4) x1 y1 x2 y2 in pixels, exclusive: of the regions' masks, as in a live run."""
        return self.make().boxes

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True, eq=False)
class AnswerTrack:
    """One object under one word; or one region that is on no track."""

    video: Video
    """Its video."""
    id: int | None
    """From 1, unique in the video; None for a region that is on no track."""
    object: int | None
    """The track of the index, the same under any word; None for stuff and single regions."""
    prompt: Prompt
    """The word."""
    frames: tuple[FoundFrame, ...]
    """F frames that it is in, in order."""
    positions: tuple[int, ...]
    """Its position among the regions of each."""

    @property
    def times_s(self) -> NDArray[np.float64]:
        """(F,) seconds of its frames."""
        return np.array([frame.time_s for frame in self.frames])

    @property
    def indices(self) -> NDArray[np.int64]:
        """(F,) positions of its frames in the video."""
        return np.array([frame.index for frame in self.frames], np.int64)

    @property
    def scores(self) -> NDArray[np.float32]:
        """(F,) its score in each."""
        pairs = zip(self.frames, self.positions, strict=True)
        return np.array([frame.scores[at] for frame, at in pairs], np.float32)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(F, 4) x1 y1 x2 y2 in pixels, exclusive."""
        pairs = zip(self.frames, self.positions, strict=True)
        return np.array([frame.boxes[at] for frame, at in pairs], np.float32)

    def mask(self, number: int) -> Mask:
        """Its mask in frame `number` of F, made when called."""
        masks = self.frames[number].make().masks_for("a mask")
        return masks[self.positions[number]]

    @property
    def best(self) -> int:
        """The number of its frame with the highest score."""
        return int(self.scores.argmax())

    @property
    def ranges(self) -> list[tuple[float, float]]:
        """Times of its first and last frame in each stretch without a gap of over a second."""
        times = self.times_s
        ends = np.flatnonzero(np.diff(times) > GAP_S)
        first = np.concatenate([[0], ends + 1])
        last = np.concatenate([ends, [len(times) - 1]])
        return [(float(times[a]), float(times[b])) for a, b in zip(first, last, strict=True)]


@dataclass(frozen=True, slots=True)
class Uncertain:
    """A frame whose answer may differ from that of a full run."""

    video: Video
    """Its video."""
    index: int
    """Position in the video."""
    time_s: float
    """Seconds."""
    prompts: tuple[int, ...]
    """For which prompts."""
    reason: str
    """Why, one line."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What an index knows of some words."""

    prompts: PromptSet
    """The words, with the thresholds that were applied."""
    modes: tuple[str, ...]
    """Of each: "vocabulary", or "sentence as a name": not fused with the image, so not exact."""
    frames: tuple[FoundFrame, ...]
    """Frames with regions, by video and index."""
    recheck: tuple[Uncertain, ...]
    """Frames of which it is not certain that they hold no more."""
    missing: tuple[Missing, ...]
    """Parts of the index that could not be read."""
    searched: int
    """How many frames were searched."""
    notes: tuple[str, ...] = ()
    """What else a reader should know, one line each."""

    @property
    def exact(self) -> bool:
        """Whether it equals a full run in vocabulary mode, on every frame that was asked for."""
        return not (self.recheck or self.missing) and all(mode == VOCABULARY for mode in self.modes)

    @cached_property
    def tracks(self) -> tuple[AnswerTrack, ...]:
        """Every region of every frame, by object and word: the highest score first."""
        groups: dict[tuple[int, int, int], list[tuple[FoundFrame, int]]] = {}
        for number, frame in enumerate(self.frames):
            for at, track in enumerate(frame.track_ids.tolist()):
                key = (frame.video.id, track, 0) if track else (number, 0, 1 + at)
                groups.setdefault(key, []).append((frame, at))
        found = [self._track(members) for members in groups.values()]
        return tuple(sorted(found, key=lambda track: -float(track.scores.max())))

    def _track(self, members: list[tuple[FoundFrame, int]]) -> AnswerTrack:
        frame, at = members[0]
        frames, positions = zip(*members, strict=True)
        known = int(frame.objects[at])
        return AnswerTrack(
            video=frame.video,
            id=int(frame.track_ids[at]) or None,
            object=known if known > 0 else None,
            prompt=self.prompts[int(frame.prompt_ids[at])],
            frames=frames,
            positions=positions,
        )

    def with_frames(
        self, frames: Iterable[FoundFrame], recheck: Sequence[Uncertain], modes: tuple[str, ...]
    ) -> Answer:
        """The same question with other frames; tracks are numbered again."""
        ordered = sorted(frames, key=lambda frame: (frame.video.id, frame.index))
        return replace(self, frames=numbered(ordered), recheck=tuple(recheck), modes=modes)

    def counts(self) -> Counter[str]:
        """Regions of each word."""
        ids = [frame.prompt_ids for frame in self.frames]
        found: Counter[int] = Counter(np.concatenate(ids).tolist() if ids else [])
        return Counter({self.prompts[k].text: count for k, count in found.items()})

    def to_json(self) -> dict[str, Any]:
        """As JSON values; masks are left out."""
        return {
            "exact": self.exact,
            "prompts": [
                {"text": p.text, "threshold": p.threshold, "mode": mode}
                for p, mode in zip(self.prompts, self.modes, strict=True)
            ],
            "searched_frames": self.searched,
            "tracks": [_track_json(track) for track in self.tracks],
            "recheck": [
                {
                    "video": one.video.name,
                    "frame": one.index,
                    "time_s": round(one.time_s, 6),
                    "prompts": [self.prompts[k].text for k in one.prompts],
                    "reason": one.reason,
                }
                for one in self.recheck
            ],
            "missing": [{"part": one.info.path, "reason": one.reason} for one in self.missing],
            "notes": list(self.notes),
        }


VOCABULARY: Final = "vocabulary"
SENTENCE: Final = "sentence as a name"


def numbered(frames: Iterable[FoundFrame]) -> tuple[FoundFrame, ...]:
    """Frames in order, with track ids: a number for each object and word of a video, from 1."""
    ids: dict[tuple[int, int, int], int] = {}
    last: Counter[int] = Counter()
    done = []
    for frame in frames:
        own = np.zeros(len(frame), np.int64)
        pairs = zip(frame.objects.tolist(), frame.prompt_ids.tolist(), strict=True)
        for at, (known, prompt) in enumerate(pairs):
            if known == 0:
                continue
            key = (frame.video.id, known, prompt)
            if key not in ids:
                last[frame.video.id] += 1
                ids[key] = last[frame.video.id]
            own[at] = ids[key]
        done.append(replace(frame, track_ids=own))
    return tuple(done)


def _track_json(track: AnswerTrack) -> dict[str, Any]:
    best, times = track.best, track.times_s.tolist()
    rows = zip(track.indices.tolist(), times, track.scores.tolist(), track.boxes, strict=True)
    return {
        "video": track.video.name,
        "track": track.id,
        "object": track.object,
        "prompt": track.prompt.text,
        "ranges_s": [[round(a, 6), round(b, 6)] for a, b in track.ranges],
        "best": {
            "frame": track.frames[best].index,
            "time_s": round(times[best], 6),
            "score": round(float(track.scores[best]), 5),
        },
        "frames": [
            {
                "frame": index,
                "time_s": round(time_s, 6),
                "score": round(score, 5),
                "box": [round(float(v), 2) for v in box],
            }
            for index, time_s, score, box in rows
        ],
    }
