"""`index:IDX`: an index of the streams of any run, live ones too."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from ape_stream.closing import Closing
from ape_stream.errors import ConfigError, SinkError
from ape_stream.files import is_whole, refuse_unwritable, written
from ape_stream.index.layout import DATABASE, HEAD, MANIFEST, PARTS, REFERENCE
from ape_stream.index.levels_file import write_levels
from ape_stream.index.store import open_store
from ape_stream.indexing.base import open_base
from ape_stream.indexing.keeping import Keeper, keep_of
from ape_stream.indexing.shelf import add_to_database, write_database
from ape_stream.indexing.writing import VideoWriter
from ape_stream.optional import library

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_stream.indexing.base import Base
    from ape_stream.types import FrameResult, MapKind
    from ape_stream.values.queries import FrameQueries

__all__ = ["IndexSink"]

_SCHEME: Final = re.compile(r"index:")
_UNDER_WAY: Final = "the run that writes it has not ended, or was killed"
_OWN: Final = (MANIFEST, DATABASE, HEAD, REFERENCE)


class IndexSink(Closing):
    """Writes an index, whose videos are the streams of the run.

    It can be asked once the run has ended, well or not, and meanwhile for its whole parts, of 1,024
    frames: so much is there, too, where the process was killed. For files, `ape-stream index` goes
    on where it was.

    Args:
        spec: Folder of the index.
        overwrite: Replace an index that is there.
        keep: Most queries of a frame that are kept, or "all".

    Raises:
        PluginError: the extra `index` is not installed.
        UsageError: `keep` is no such number.
    """

    maps: frozenset[MapKind] = frozenset({"queries"})
    """What it needs of every frame; see `NeedsMaps`."""

    def __init__(self, spec: str, *, overwrite: bool = False, keep: int | str = 50) -> None:
        library("pyarrow", "index")
        self.root = Path(_SCHEME.sub("", spec))
        self._overwrite = overwrite
        self._keep = keep_of(str(keep))
        self._base: Base | None = None
        self._keeper: Keeper | None = None
        self._writers: dict[str, VideoWriter] = {}

    @property
    def files(self) -> tuple[Path, ...]:
        """The folder that is written; see `WritesFiles`."""
        return (self.root,)

    def claim(self, streams: Sequence[str]) -> None:
        """Refuse a folder where something would be lost; see `WritesFiles`."""
        del streams
        if self.root.exists() and not self.root.is_dir():
            raise SinkError(f"cannot write {self.root}: it is a file")
        if not self._overwrite and any((self.root / n).exists() for n in (*_OWN, PARTS)):
            raise ConfigError(
                f"{self.root} holds an index already: give another folder, or replace it with"
                " overwrite=True"
            )
        refuse_unwritable(self.root)

    def __enter__(self) -> Self:
        """Make room."""
        self.claim(())
        with written(self.root):
            for name in _OWN:
                (self.root / name).unlink(missing_ok=True)
            shutil.rmtree(self.root / PARTS, ignore_errors=True)
        return self

    def write(self, result: FrameResult) -> None:
        """Keep the queries of one frame.

        Raises:
            SinkError: a file cannot be written.
            ConfigError: the model gives no queries.
        """
        queries = result.maps.queries
        if queries is None:
            raise ConfigError(f"output {self.root}: the model gives no queries: only APE does")
        keeper, identity = self._ready(queries)
        stream = result.frame.stream
        if stream not in self._writers:
            self._writers[stream] = VideoWriter(self.root, stream, identity)
        writer = self._writers[stream]
        whole = len(writer.parts)
        writer.write(keeper.frame(result.frame, queries))
        if len(writer.parts) > whole:
            number = 1 + list(self._writers).index(stream)
            add_to_database(self.root, number, writer.last_part(_UNDER_WAY))

    def _ready(self, queries: FrameQueries) -> tuple[Keeper, str]:
        if self._base is None or self._keeper is None:
            self._base = open_base(self.root, queries.facts, self._keep)
            self._keeper = Keeper(self._base.head, self._base.reference, self._keep)
        return self._keeper, self._base.manifest.identity

    def close(self, error: BaseException | None = None) -> None:
        """Write what is left, and the database."""
        problem = None if is_whole(error) else f"the run was cut short: {error}"
        videos = [writer.finish(None, None, problem) for _, writer in sorted(self._writers.items())]
        if videos:
            write_database(self.root, videos)
            write_levels(open_store(self.root))
