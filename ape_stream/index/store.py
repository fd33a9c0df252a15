"""An index as a whole, for reading."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ape_stream.errors import ConfigError
from ape_stream.index.alignment import Head, read_head
from ape_stream.index.database import Database
from ape_stream.index.layout import DATABASE, HEAD, Manifest, read_manifest
from ape_stream.index.part import DamagedPartError, Part, open_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_stream.index.layout import PartInfo, Track, Video

__all__ = ["Missing", "Store", "open_store"]


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that cannot be read: nothing is known of its frames."""

    info: PartInfo
    """Which one."""
    reason: str
    """Why, one line."""


@dataclass(frozen=True, eq=False)
class Store:
    """An index: its videos, and the parts of them that can be read."""

    root: Path
    """Its folder."""
    manifest: Manifest
    """What made it."""
    head: Head
    """Aligns states with texts."""
    videos: dict[int, Video]
    """By id."""
    parts: tuple[Part, ...]
    """By video and number; mapped into memory, read when used."""
    missing: tuple[Missing, ...]
    """What could not be read."""

    def parts_between(
        self,
        start_s: float = float("-inf"),
        end_s: float = float("inf"),
        videos: set[int] | None = None,
    ) -> Iterator[Part]:
        """The parts that have a frame with start_s <= time_s < end_s; `frames_between` says which.

        Args:
            start_s: Seconds on the clock of each video.
            end_s: The same; excluded.
            videos: Ids; None takes all.
        """
        for part in self.parts:
            info = part.info
            if videos is not None and info.video not in videos:
                continue
            if info.end_s >= start_s and info.start_s < end_s:
                yield part

    def tracks(
        self, video: int, start_s: float = float("-inf"), end_s: float = float("inf")
    ) -> list[Track]:
        """The tracks of a video that have a frame in this range of time.

        Raises:
            ConfigError: the database is damaged.
        """
        with Database(self.root / DATABASE) as database:
            return database.tracks(video, start_s, end_s)

    def without(self, info: PartInfo, reason: str) -> Store:
        """The same without a part that turned out to be damaged."""
        parts = tuple(part for part in self.parts if part.info != info)
        return replace(self, parts=parts, missing=(*self.missing, Missing(info, reason)))

    def verified(self) -> Store:
        """The same without what is damaged: everything is read and compared with its checksums."""
        store = self
        for part in self.parts:
            try:
                part.verify()
            except DamagedPartError as error:
                store = store.without(error.info, error.reason)
        return store

    @cached_property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(part.info.rows for part in self.parts)


def open_store(root: str | Path) -> Store:
    """Open an index.

    A part that is damaged, or of other weights, is left out and named in `Store.missing`. States,
    masks and what is kept of dropped queries are checked where they are read (`DamagedPartError`).

    Raises:
        ConfigError: there is no index, or what all parts need is damaged.
    """
    root = Path(root)
    manifest = read_manifest(root)
    head = read_head(root / HEAD)
    if head.digest != manifest.head:
        raise ConfigError(f"{root / HEAD} is not the one that {root} was made with: make it again")
    if not (root / DATABASE).exists():
        raise ConfigError(
            f"{root} has no {DATABASE} yet: the run that makes it has not ended, or was killed"
            " (`ape-stream index` goes on with files when it is started again)"
        )
    with Database(root / DATABASE) as database:
        videos = {video.id: video for video in database.videos()}
        infos = database.parts()
    parts, missing = [], []
    for info in infos:
        try:
            parts.append(open_part(root, info, manifest, head))
        except ConfigError as error:
            missing.append(Missing(info, str(error)))
    return Store(root, manifest, head, videos, tuple(parts), tuple(missing))
