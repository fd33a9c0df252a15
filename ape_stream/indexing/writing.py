"""A video of an index: its frames in parts, its tracks, and what the database says of both."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ape_stream.index.layout import PART_FRAMES, PARTS, PartInfo, Track, Video, part_files
from ape_stream.indexing.parts import write_part
from ape_stream.indexing.tracking import RowTracker
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ape_stream.indexing.parts import IndexedFrame

__all__ = ["VideoRows", "VideoWriter"]


@dataclass(slots=True)
class VideoRows:
    """What the database will hold of one video, under the id 0."""

    video: Video
    """The video."""
    parts: list[PartInfo] = field(default_factory=list)
    """Its parts."""
    tracks: list[Track] = field(default_factory=list)
    """Its tracks."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> VideoRows:
        """Undo `to_json`."""
        parts = [read_table(PartInfo, part, "a part") for part in given["parts"]]
        tracks = [read_table(Track, track, "a track") for track in given["tracks"]]
        return cls(read_table(Video, given["video"], "a video"), parts, tracks)


class VideoWriter:
    """Writes the parts of one video.

    Args:
        root: Folder of the index.
        name: Of the video, unique in the index.
        identity: `Manifest.identity`.
    """

    def __init__(self, root: Path, name: str, identity: str) -> None:
        self._root = root
        self._name = name
        self._identity = identity
        self._tracker = RowTracker()
        self._frames: list[IndexedFrame] = []
        self._ids: list[NDArray[np.int64]] = []
        self._first: IndexedFrame | None = None
        self.parts: list[PartInfo] = []
        """Those that are written."""

    def write(self, frame: IndexedFrame) -> None:
        """Take the next frame; a full part is written.

        Raises:
            SinkError: it cannot be written.
        """
        self._first = self._first or frame
        self._frames.append(frame)
        self._ids.append(self._tracker.update(frame))
        if len(self._frames) == PART_FRAMES:
            self._part()

    def finish(
        self, source: str | None, rate: tuple[int, int] | None, problem: str | None
    ) -> VideoRows:
        """Write what is left.

        Args:
            source: The file or URL.
            rate: Frames per second that the container states.
            problem: Why the video is not whole, where it is not.

        Raises:
            SinkError: it cannot be written.
            ValueError: there was no frame.
        """
        if self._frames:
            self._part()
        return self._rows(source, rate, problem, self._tracker.tracks(0))

    def last_part(self, problem: str) -> VideoRows:
        """What the last part that was written adds to the database, while the video goes on.

        Args:
            problem: Why the video is not whole.
        """
        part = self.parts[-1]
        tracks = [track for track in self._tracker.tracks(0) if track.end_s >= part.start_s]
        rows = self._rows(None, None, problem, tracks)
        return replace(rows, parts=[part])

    def _rows(
        self,
        source: str | None,
        rate: tuple[int, int] | None,
        problem: str | None,
        tracks: list[Track],
    ) -> VideoRows:
        if self._first is None:
            raise ValueError(f"{self._name} has no frame")
        height, width = self._first.size
        video = Video(
            id=0,
            name=self._name,
            source=source,
            width=width,
            height=height,
            time_base=self._first.time_base,
            rate=rate,
            frames=sum(part.frames for part in self.parts),
            problem=problem,
        )
        return VideoRows(video, self.parts, tracks)

    def _part(self) -> None:
        frames, number = self._frames, len(self.parts)
        path = f"{PARTS}/{self._name}/{number:06d}"
        sizes = write_part(self._root, path, frames, self._ids, self._identity)
        times = [frame.time_s for frame in frames]
        info = PartInfo(
            video=0,
            number=number,
            path=path,
            frames=len(frames),
            rows=sum(len(frame.query) for frame in frames),
            dropped=sum(frame.dropped for frame in frames),
            start_s=min(times),
            end_s=max(times),
            **sizes,
        )
        self.parts.append(info)
        self._frames, self._ids = [], []

    def files(self) -> list[Path]:
        """What was written."""
        return [file for part in self.parts for file in part_files(self._root, part.path)]
