"""Maps that give every pixel of a frame to one prompt or to one segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ape_stream.values.arrays import checked, read_only

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.values.queries import FrameQueries

__all__ = ["MapKind", "Maps", "PanopticMap", "Segment", "SemanticMap"]

MapKind = Literal["semantic", "panoptic", "queries"]
"""What can be asked for: a prompt for every pixel, a segment for every pixel, or the queries of the
network, which an index keeps."""


@dataclass(frozen=True, slots=True, eq=False)
class SemanticMap:
    """The prompt of every pixel."""

    ids: NDArray[np.uint16]
    """(H, W) uint16, read-only: 0 = nothing, k = prompt k-1."""
    coarse: NDArray[np.float32] | None = None
    """(P, h, w) float32, read-only: strength of each prompt at the network's own resolution; None
    where the map came without, as over the wire."""
    filled: tuple[float, float] = (0.0, 0.0)
    """Rows and columns of `coarse` that the frame fills; the rest is padding."""

    def __post_init__(self) -> None:
        """Check the arrays and make them read-only."""
        object.__setattr__(self, "ids", checked("ids", self.ids, self.ids.shape[:2], np.uint16))
        if self.coarse is not None:
            object.__setattr__(self, "coarse", read_only(self.coarse))


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a panoptic map: one thing, or all regions of a stuff prompt."""

    id: int
    """Its value in the map, 1..65535."""
    prompt_id: int
    """Position in the prompt set."""
    isthing: bool
    """True for one countable object, False for stuff."""
    score: float
    """Score of its strongest region, 0..1."""
    area: int
    """Pixels of the frame, at least 1."""


@dataclass(frozen=True, slots=True, eq=False)
class PanopticMap:
    """The segment of every pixel, and the table of the segments."""

    ids: NDArray[np.uint16]
    """(H, W) uint16, read-only: 0 = nothing, else the id of a segment."""
    segments: tuple[Segment, ...]
    """Every segment that has a pixel, by rising id."""
    stuff: tuple[bool, ...]
    """Which prompts are stuff, by prompt id."""

    def __post_init__(self) -> None:
        """Check the map and make it read-only."""
        object.__setattr__(self, "ids", checked("ids", self.ids, self.ids.shape[:2], np.uint16))


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of one frame; None for what was not asked for."""

    semantic: SemanticMap | None = None
    panoptic: PanopticMap | None = None
    queries: FrameQueries | None = None
