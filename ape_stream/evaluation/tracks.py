"""Tracks judged on videos with known ids: MOTA and IDF1, by the metrics of `trackers`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream.errors import UsageError
from ape_stream.masks import crop, iou_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.protocols.worlds import AnnotatedImage
    from ape_stream.types import Instances

__all__ = ["TrackBook", "TrackScore", "score_tracks"]

MATCH = 0.5
"""Mask IoU from which a track is on a thing."""


@dataclass(slots=True)
class TrackBook:
    """One video's true ids, track ids and overlaps, frame by frame."""

    true_ids: list[NDArray[np.int64]] = field(default_factory=list)
    """Per frame (G,) ids of the things that must be found."""
    track_ids: list[NDArray[np.int64]] = field(default_factory=list)
    """Per frame (N,) ids of the confirmed tracks."""
    overlaps: list[NDArray[np.float64]] = field(default_factory=list)
    """Per frame (G, N) mask IoU; 0 between different classes."""

    def add(self, picture: AnnotatedImage, found: Instances) -> None:
        """Enter the next frame's truth and its tracked things; prompt ids are class ids.

        Tracks that lie on a thing that shows too little to be asked for count neither way.

        Raises:
            ValueError: nothing was tracked.
        """
        if found.track_ids is None:
            raise ValueError("the regions have no track ids")
        asked = [r for r in picture.instances if not r.stuff]
        regions = [*asked, *(r for r in picture.ignored if not r.stuff)]
        masks = [crop(picture.instance_map == r.id) for r in regions]
        keep = np.flatnonzero(found.track_ids > 0)
        overlap = iou_matrix(masks, [found.masks[k] for k in keep]).astype(np.float64)
        classes = np.array([r.class_id for r in regions], np.int64)
        overlap[classes[:, None] != found.prompt_ids[keep][None]] = 0
        ignored = overlap[len(asked) :].max(axis=0, initial=0.0) >= MATCH
        self.true_ids.append(np.array([r.id for r in asked], np.int64))
        self.track_ids.append(found.track_ids[keep][~ignored])
        self.overlaps.append(overlap[: len(asked), ~ignored])


@dataclass(frozen=True, slots=True)
class TrackScore:
    """How well things kept their identities, over all videos."""

    mota: float
    """Multiple object tracking accuracy (CLEAR), at most 1."""
    idf1: float
    """F1 of the identities, 0..1."""
    switches: int
    """How often a thing changed its track."""


def score_tracks(books: Sequence[TrackBook]) -> TrackScore:
    """Judge the tracks of several videos together.

    Raises:
        UsageError: the extra that holds the metrics is not installed.
    """
    try:
        from trackers import eval as metrics  # noqa: PLC0415 (an extra, and slow to import)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"judging tracks needs {error.name}: pip install 'ape-stream[trackers]'"
        ) from error
    clear: list[dict[str, Any]] = []
    identity: list[dict[str, Any]] = []
    for book in books:
        given = book.true_ids, book.track_ids, book.overlaps
        clear.append(metrics.compute_clear_metrics(*given, threshold=MATCH))
        identity.append(metrics.compute_identity_metrics(*given, threshold=MATCH))
    total = metrics.aggregate_clear_metrics(clear)
    return TrackScore(
        mota=float(total["MOTA"]),
        idf1=float(metrics.aggregate_identity_metrics(identity)["IDF1"]),
        switches=int(total["IDSW"]),
    )
