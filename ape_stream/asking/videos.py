"""Frames of the videos that an index was made of, where these are at hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ape_stream.errors import SourceError, UsageError
from ape_stream.index.layout import SOURCES
from ape_stream.plugins import make
from ape_stream.protocols import SkipsFrames
from ape_stream.specs import source_plugin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ape_stream.index.layout import Video
    from ape_stream.types import Frame

__all__ = ["Videos"]


class Videos:
    """Reads frames of videos by their numbers.

    Args:
        index: Folder of the index.
        folder: Where the videos are; None takes where they were when the index was made.
    """

    def __init__(self, index: Path, folder: Path | None = None) -> None:
        self._folders = [folder] if folder is not None else [*_noted(index), Path(), index.parent]

    def frames(self, video: Video, wanted: Collection[int]) -> Iterator[Frame]:
        """The frames with these numbers, in order.

        Raises:
            UsageError: the video is not here.
            SourceError: it cannot be read.
        """
        if not wanted:
            return
        spec = self._spec(video)
        source = make("sources", source_plugin(spec), spec, options={"name": video.name})
        last, numbers = max(wanted), frozenset(wanted)

        def keep(index: int, _time_s: float) -> bool:
            if index > last:
                raise _Enough
            return index in numbers

        with source:
            if source.live:
                raise SourceError(f"{spec} is live: its frames are gone")
            if isinstance(source, SkipsFrames):
                source.keep(keep)
            try:
                for frame in source:
                    if keep(frame.index, frame.time_s):
                        yield replace(frame, stream=video.name)
            except _Enough:
                return

    def _spec(self, video: Video) -> str:
        if video.source is None:
            raise UsageError(f"{video.name} was a stream: its frames are gone")
        if "://" in video.source:
            return video.source
        for folder in self._folders:
            if (path := folder / video.source).exists():
                return str(path)
        places = ", ".join(dict.fromkeys(str(folder.absolute()) for folder in self._folders))
        raise UsageError(
            f"{video.source} is not in {places}: give the folder of the videos with --sources"
        )


def _noted(index: Path) -> list[Path]:
    try:
        folder = json.loads((index / SOURCES).read_text(encoding="utf-8"))["folder"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [Path(folder)] if isinstance(folder, str) else []


class _Enough(Exception):  # noqa: N818 (a signal, not an error)
    """No further frame is needed."""
