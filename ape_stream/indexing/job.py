"""What indexing does with a clip: the network on its frames, then tracks and parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ape_stream.batch.folder import json_bytes
from ape_stream.batch.shards import write_whole
from ape_stream.errors import ConfigError
from ape_stream.files import sampled_digest
from ape_stream.index.layout import read_manifest
from ape_stream.indexing.base import open_base
from ape_stream.indexing.keeping import Keep, Keeper
from ape_stream.indexing.payload import from_payload, to_payload
from ape_stream.indexing.writing import VideoRows, VideoWriter
from ape_stream.optional import library
from ape_stream.plugins import load, make
from ape_stream.protocols import GivesQueries, KnowsWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_stream.batch.job import ClipResults
    from ape_stream.types import Frame

__all__ = ["ADDRESS", "IndexJob", "read_rows", "weights_digest"]

ADDRESS: Final = "ape_stream.indexing.job:IndexJob"
"""What workers make the job of; see `ape_stream.batch.job`."""
_ROWS: Final = "rows.json"


class IndexJob:
    """Keeps the queries of every frame; see `Job`.

    Args:
        out: Folder of the index, absolute.
        model: Plugin and options of the perceiver.
        keep: See `Keep`.
        words: Reference words beyond the names that the network learnt.
    """

    batch = 1
    """What a network computes of several frames at once has other last bits."""

    def __init__(
        self, *, out: str, model: dict[str, Any], keep: dict[str, Any], words: list[str]
    ) -> None:
        self._root = Path(out)
        self._model = model
        self._keep = Keep(**keep)
        self._words = words
        self._perceiver: GivesQueries | None = None
        self._keeper: Keeper | None = None

    def identity(self) -> dict[str, Any]:
        """The digest of the model's weights."""
        library("pyarrow", "index")  # before hours of work
        return {"weights": weights_digest(self._model)}

    def load(self) -> None:
        """Load the model, and make what all parts of the index share."""
        plugin = self._model["plugin"]
        perceiver = make("perceivers", plugin, options=self._model["options"])
        if not isinstance(perceiver, GivesQueries):
            raise ConfigError(f"the model {plugin!r} gives no queries: only APE can be indexed")
        base = open_base(self._root, perceiver.facts, self._keep, self._words)
        self._perceiver = perceiver
        self._keeper = Keeper(base.head, base.reference, self._keep)

    def describe(self, frames: Sequence[Frame]) -> list[bytes]:
        """What the index keeps of each frame."""
        assert self._perceiver is not None  # noqa: S101 (`load` comes first)
        assert self._keeper is not None  # noqa: S101 (`load` comes first)
        return [
            to_payload(self._keeper.frame(frame, self._perceiver.queries(frame)))
            for frame in frames
        ]

    def finish(
        self, results: ClipResults, progress: Callable[[int], None]
    ) -> tuple[dict[str, Any], list[Path]]:
        """Track a clip and write its parts."""
        identity = read_manifest(self._root).identity
        writer = VideoWriter(self._root, results.clip.name, identity)
        for payload in results.payloads():
            writer.write(from_payload(payload))
            progress(1)
        next(iter(results.frames()), None)  # the rate is known once a frame was read
        problem = results.end["problem"]
        rows = writer.finish(results.clip.source, results.rate(), problem)
        path = results.work / _ROWS
        write_whole(path, json_bytes(rows.to_json()))
        found = {
            "frames": rows.video.frames,
            "problem": problem,
            "rows": sum(part.rows for part in rows.parts),
            "dropped": sum(part.dropped for part in rows.parts),
            "tracks": len(rows.tracks),
            "bytes": sum(part.rows_bytes + part.frames_bytes for part in rows.parts),
        }
        return found, [*writer.files(), path]


def read_rows(work: Path) -> VideoRows:
    """What `IndexJob.finish` left for the database."""
    return VideoRows.from_json(json.loads((work / _ROWS).read_text(encoding="utf-8")))


def weights_digest(model: dict[str, Any]) -> str:
    """Of the files of a model; of its options where its plugin names no files."""
    factory = load("perceivers", model["plugin"])
    if isinstance(factory, KnowsWeights):
        return sampled_digest(map(Path, factory.weights(**model["options"])))
    return sampled_digest([])
