"""What was found in one frame: masks, boxes, scores and identities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ape_stream.errors import UsageError
from ape_stream.values.arrays import checked, read_only

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Instances", "Mask"]


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
        object.__setattr__(self, "bitmap", read_only(self.bitmap))

    def __repr__(self) -> str:
        height, width = self.bitmap.shape
        return f"Mask({width}x{height} at ({self.x}, {self.y}), {int(self.bitmap.sum())} pixels)"


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """What was found in one frame: N regions as parallel arrays."""

    boxes: NDArray[np.float32]
    """(N, 4) float32, x1 y1 x2 y2 in pixels of the frame, x2 and y2 exclusive."""
    scores: NDArray[np.float32]
    """(N,) float32, 0..1."""
    prompt_ids: NDArray[np.int64]
    """(N,) int64, positions in the prompt set."""
    masks: tuple[Mask, ...] | None
    """N masks, each cut to its own extent; None from a detector that gives boxes only."""
    size: tuple[int, int]
    """Height and width of the frame in pixels."""
    track_ids: NDArray[np.int64] | None = None
    """(N,) int64 from 1, never reused in a stream; 0 = not yet confirmed; None before tracking."""
    candidate_ids: NDArray[np.int64] | None = None
    """(N,) int64: the track id that a region has, or gets if its track is confirmed; 0 = none. What
    is coloured by it keeps its colour. None where the tracker does not say."""

    def __post_init__(self) -> None:
        """Check that all arrays have the same N regions, and make them read-only."""
        n = len(self.boxes if self.masks is None else self.masks)
        arrays = {
            "boxes": checked("boxes", self.boxes, (n, 4), np.float32),
            "scores": checked("scores", self.scores, (n,), np.float32),
            "prompt_ids": checked("prompt_ids", self.prompt_ids, (n,), np.int64),
        }
        for name in ("track_ids", "candidate_ids"):
            if (ids := getattr(self, name)) is not None:
                arrays[name] = checked(name, ids, (n,), np.int64)
        for name, array in arrays.items():
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
            masks=None if self.masks is None else tuple(self.masks[int(k)] for k in keep),
            size=self.size,
            track_ids=None if self.track_ids is None else self.track_ids[keep],
            candidate_ids=None if self.candidate_ids is None else self.candidate_ids[keep],
        )

    def masks_for(self, purpose: str) -> tuple[Mask, ...]:
        """The N masks, for what cannot be made of boxes.

        Args:
            purpose: What needs them, for the message: "a label map".

        Raises:
            UsageError: the model gave boxes only.
        """
        if self.masks is None:
            raise UsageError(f"{purpose} needs masks, and this model gives boxes only")
        return self.masks

    def with_track_ids(
        self, track_ids: NDArray[np.int64], candidate_ids: NDArray[np.int64] | None = None
    ) -> Instances:
        """The same regions under these (N,) int64 track ids, and ids of unconfirmed tracks."""
        return replace(self, track_ids=track_ids, candidate_ids=candidate_ids)

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        height, width = self.size
        tracked = "" if self.track_ids is None else ", tracked"
        return f"Instances({len(self)} in {width}x{height}{tracked})"
