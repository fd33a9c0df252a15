"""What an output folder holds, and the lock that keeps a second run out of it.

OUT/plan.json               what the job is: written first, compared by every later run
OUT/<clip>/...              final files of a clip
OUT/summary.json, ...       final files of the job
OUT/failed.jsonl            clips that could not be done, with the reason
OUT/.shards/lock            held while a run goes on
OUT/.shards/sources         where the sources were on this machine
OUT/.shards/clips/<clip>/   the shards of a clip; `done.json` when its final files are written
OUT/.shards/clips/<clip>/attempts.jsonl   workers that it cost
"""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from ape_stream.batch.shards import TEMPORARY, ShardFolder, write_whole
from ape_stream.errors import ConfigError, reason_of
from ape_stream.files import held, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from ape_stream.batch.clips import Clip

__all__ = ["OutFolder", "json_bytes"]

_DONE: Final = "done.json"
_ATTEMPTS: Final = "attempts.jsonl"


def json_bytes(value: object, *, indent: int | None = None) -> bytes:
    """JSON with sorted keys and a line end: the same bytes for the same value."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent)
    # A file name that is not UTF-8 is in Python's own escape: it stays readable as \udcXX.
    return f"{text}\n".encode(errors="backslashreplace")


class OutFolder:
    """The output folder of a job.

    Args:
        root: The folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plan = root / "plan.json"
        self.summary = root / "summary.json"
        self.failed = root / "failed.jsonl"
        self.report = root / "report.html"
        self.work = root / ".shards"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out, and remove what a killed one left half written.

        Raises:
            ConfigError: another run is at work here, or this is no folder that can be written.
        """
        lock = self.work / "lock"
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            lock.touch()
        except OSError as error:
            raise ConfigError(
                f"cannot write into {self.root}: {reason_of(error)}: give another --out-dir"
            ) from error
        with ExitStack() as stack:
            try:
                stack.enter_context(held(lock))
            except ConfigError as error:
                raise ConfigError(
                    f"another run is at work in {self.root}: wait for it, or give another --out-dir"
                ) from error
            for left in self.work.rglob(f".*{TEMPORARY}"):
                with suppress(OSError):
                    left.unlink()
            yield

    def outputs(self, clip: Clip) -> Path:
        """Where a clip's final files go."""
        return self.root / clip.name

    def clip_work(self, clip: Clip) -> Path:
        """Where a clip's shards are."""
        return self.work / "clips" / clip.name

    def shards(self, clip: Clip) -> ShardFolder:
        """The shards of a clip."""
        return ShardFolder(self.clip_work(clip))

    # -- what is known of a clip ------------------------------------------------------------

    def done(self, clip: Clip, digest: str) -> dict[str, Any] | None:
        """What was found in a clip whose final files were written by this plan, and still are."""
        try:
            known = json.loads((self.clip_work(clip) / _DONE).read_text(encoding="utf-8"))
            sizes: dict[str, int] = known["files"]
            there = all((self.root / p).stat().st_size == size for p, size in sizes.items())
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        found: dict[str, Any] = known["found"]
        return found if there and known.get("plan") == digest else None

    def mark_done(
        self, clip: Clip, digest: str, found: Mapping[str, Any], files: Iterable[Path]
    ) -> None:
        """Remember that a clip is done.

        Args:
            clip: The clip.
            digest: Of the plan's writing part.
            found: What was found, for the summary.
            files: Its final files.

        Raises:
            SinkError: it cannot be written.
        """
        sizes = {path.relative_to(self.root).as_posix(): path.stat().st_size for path in files}
        known = {"plan": digest, "found": found, "files": sizes}
        write_whole(self.clip_work(clip) / _DONE, json_bytes(known))

    def forget(self, clip: Clip) -> None:
        """Remove what is known of a clip, its shards too; its final files stay."""
        for path in sorted(self.clip_work(clip).glob("*")):
            if path.is_file():
                with written(path):
                    path.unlink()

    def attempts(self, clip: Clip) -> list[dict[str, Any]]:
        """The attempts at a clip that failed, in order; later runs count on."""
        try:
            lines = (self.clip_work(clip) / _ATTEMPTS).read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines]
        except (OSError, ValueError, RecursionError):
            return []

    def set_attempts(self, clip: Clip, attempts: list[dict[str, Any]]) -> None:
        """Remember the attempts at a clip that failed.

        Raises:
            SinkError: it cannot be written.
        """
        write_whole(self.clip_work(clip) / _ATTEMPTS, b"".join(map(json_bytes, attempts)))
