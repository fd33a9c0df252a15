"""What moves through the pipeline: frames, prompts, masks, instances, results.

All types are frozen and checked when made. Arrays inside them are read-only views, so a value can
be handed from thread to thread without a copy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import supervision as sv
    from numpy.typing import NDArray

__all__ = ["Frame", "FrameResult", "Instances", "Mask", "Prompt", "PromptKind", "PromptSet"]

MAX_PROMPT_CHARS = 1_000
"""A longer prompt is refused: every text tower here reads at most 77 tokens of it."""


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of one stream."""

    image: NDArray[np.uint8]
    """Pixels, (H, W, 3) uint8, blue-green-red, 0..255, read-only."""
    index: int
    """Position counted at the source from 0; a dropped frame leaves a gap."""
    time_s: float
    """Seconds on the stream's own clock (its presentation timestamp)."""
    stream: str = "0"
    """Name of the stream, unique within a run."""
    captured_ns: int = 0
    """`time.monotonic_ns()` when the source delivered it: the start of its age."""
    origin: str | None = None
    """The picture file it was read from, or None for video."""

    def __post_init__(self) -> None:
        """Check the image and make it read-only."""
        shape, dtype = self.image.shape, self.image.dtype
        if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
            raise ValueError(f"a frame is (H, W, 3) uint8 and not empty, got {shape} {dtype}")
        object.__setattr__(self, "image", _frozen(self.image))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def __repr__(self) -> str:
        height, width = self.size
        return f"Frame({self.stream!r} #{self.index} at {self.time_s:.3f} s, {width}x{height})"


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
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise PromptError(f"prompt {text!r} cannot be written in any output")
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise PromptError(f"threshold of {text!r} is {self.threshold}, not within 0..1")
        object.__setattr__(self, "text", text)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The prompts of a run, in order; a detection's prompt id is a position in it."""

    prompts: tuple[Prompt, ...]
    """At least one prompt; no text twice."""

    def __post_init__(self) -> None:
        """Check that there is something to look for, once each.

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
    def of(cls, prompts: str | Iterable[str | Prompt]) -> PromptSet:
        """Make a set from a comma-separated line or from prompts, dropping repeated texts.

        Args:
            prompts: "red apple, dog face", or texts and prompts in any mixture. Only a line is
                split at commas: a text inside a list may hold commas of its own.

        Raises:
            PromptError: nothing is left, or a prompt is unusable.
        """
        if isinstance(prompts, str):
            prompts = [part for part in prompts.split(",") if part.strip()]
        first: dict[str, Prompt] = {}
        for given in prompts:
            prompt = given if isinstance(given, Prompt) else Prompt(given)
            first.setdefault(prompt.text, prompt)
        return cls(tuple(first.values()))

    @property
    def digest(self) -> str:
        """Stable name of the whole set (first 16 hex digits of a SHA-256)."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A binary mask cut to the box of its true pixels."""

    bitmap: NDArray[np.bool_]
    """(h, w) bool, the crop, read-only; h and w are at least 1 unless the mask is empty."""
    x: int = 0
    """Column of the crop's left edge in the frame, pixels."""
    y: int = 0
    """Row of the crop's top edge in the frame, pixels."""

    def __post_init__(self) -> None:
        """Check the bitmap and make it read-only."""
        if self.bitmap.ndim != 2 or self.bitmap.dtype != np.bool_:
            raise ValueError(f"a mask is (h, w) bool, got {self.bitmap.shape} {self.bitmap.dtype}")
        if self.x < 0 or self.y < 0:
            raise ValueError(f"a mask lies inside its frame, got corner ({self.x}, {self.y})")
        object.__setattr__(self, "bitmap", _frozen(self.bitmap))


def _checked(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {shape} {np.dtype(dtype)}, got {array.shape} {array.dtype}"
        )
    return _frozen(array)


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """What was found in one frame: N regions as parallel arrays."""

    boxes: NDArray[np.float32]
    """(N, 4) float32, x1 y1 x2 y2 in pixels of the frame, x2 and y2 exclusive."""
    scores: NDArray[np.float32]
    """(N,) float32, 0..1."""
    prompt_ids: NDArray[np.int64]
    """(N,) int64, positions in the prompt set."""
    masks: tuple[Mask, ...]
    """N masks, each cut to its own extent."""
    size: tuple[int, int]
    """Height and width of the frame in pixels."""
    track_ids: NDArray[np.int64] | None = None
    """(N,) int64 from 1, never reused in a stream; 0 = not yet confirmed; None before tracking."""

    def __post_init__(self) -> None:
        """Check that all fields speak of the same N regions."""
        n = len(self.masks)
        checked = {
            "boxes": _checked("boxes", self.boxes, (n, 4), np.float32),
            "scores": _checked("scores", self.scores, (n,), np.float32),
            "prompt_ids": _checked("prompt_ids", self.prompt_ids, (n,), np.int64),
        }
        if self.track_ids is not None:
            checked["track_ids"] = _checked("track_ids", self.track_ids, (n,), np.int64)
        for name, array in checked.items():
            object.__setattr__(self, name, array)

    @classmethod
    def empty(cls, size: tuple[int, int]) -> Instances:
        """Nothing found in a frame of this height and width."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            prompt_ids=np.zeros(0, np.int64),
            masks=(),
            size=size,
        )

    def select(self, keep: NDArray[np.intp] | NDArray[np.bool_]) -> Instances:
        """The regions at `keep`, (K,) positions in any order or (N,) bool."""
        keep = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        return Instances(
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            prompt_ids=self.prompt_ids[keep],
            masks=tuple(self.masks[int(k)] for k in keep),
            size=self.size,
            track_ids=None if self.track_ids is None else self.track_ids[keep],
        )

    def with_track_ids(self, track_ids: NDArray[np.int64]) -> Instances:
        """The same regions under these (N,) int64 track ids."""
        return replace(self, track_ids=track_ids)

    def __len__(self) -> int:
        return len(self.masks)


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """Everything known of one frame at the end of the pipeline."""

    frame: Frame
    """The frame itself."""
    instances: Instances
    """What was found, tracked."""
    prompts: PromptSet
    """The prompts in force for this frame; `instances.prompt_ids` point into it."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds spent per stage, by stage name."""

    @property
    def detections(self) -> sv.Detections:
        """The instances as `supervision.Detections`, masks dense only when touched."""
        from ape_stream.interop import to_detections  # noqa: PLC0415 (supervision takes 1 s to import)

        return to_detections(self)
