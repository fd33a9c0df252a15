"""Which clips a job has: files, folders, patterns and lists, each clip with a name and a digest.

A clip is a video, or the images of one folder. Its name is the folder of its outputs: the clip's
path below the folder that all sources share, so that outputs mirror the tree of the sources.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ape_stream.errors import UsageError
from ape_stream.files import sampled_digest
from ape_stream.sources.media import URL, find_media, is_pattern, natural_key
from ape_stream.specs import stream_name

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ape_stream.sources.media import Found

__all__ = [
    "RESERVED",
    "Clip",
    "Shelf",
    "clip_spec",
    "find_clips",
    "is_clip",
]

RESERVED: Final = frozenset(("failed.jsonl", "plan.json", "report.html", "summary.json"))
"""Names that the job itself writes into the output folder."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
"""Characters of a file's name that would break lines of tables and of answers."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One video, or the images of one folder."""

    name: str
    """Where its outputs go, below the output folder: "siteA/day1/clip00"."""
    source: str
    """Its path below the shelf's folder, with `/`, or the whole string for what is no file."""
    size: int
    """Bytes."""
    digest: str
    """Of its content; see `sampled_digest`."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """The clips of a job, and where they are on this machine."""

    folder: Path | None
    """The folder that all sources share; None where none is a file."""
    clips: tuple[Clip, ...]
    """In natural order of their names, at least one."""

    def spec(self, clip: Clip) -> str:
        """The string that opens a clip here."""
        return clip_spec(self.folder, clip)


def clip_spec(folder: Path | None, clip: Clip) -> str:
    """The string that opens a clip whose shelf is in this folder."""
    if folder is None or URL.match(clip.source):
        return clip.source
    return str(folder / clip.source)


def find_clips(
    sources: Sequence[str],
    *,
    without: Path | None = None,
    reserved: Collection[str] = RESERVED,
) -> Shelf:
    """Find the clips that sources stand for; only their names and a sample of bytes are read.

    Args:
        sources: Files, folders (with all folders below), patterns, lists of paths (`.txt`,
            `.streams`), or URLs of plugins.
        without: A folder that is left out wherever it is: that of the outputs.
        reserved: Names that no clip gets.

    Raises:
        UsageError: a source does not exist or cannot be read, or there is no clip at all.
    """
    skip = None if without is None else without.resolve()
    found: dict[str, Found] = {}
    for source in sources:
        for one in find_media(source, skip):
            # The same file by two ways is one clip.
            found.setdefault(os.path.realpath(one.spec) if one.root else one.spec, one)
    if not found:
        raise UsageError(
            f"no video and no image in {', '.join(sources)}: what has another suffix than theirs is"
            " taken only if it is named itself"
        )
    roots = [str(one.root.absolute()) for one in found.values() if one.root is not None]
    folder = Path(os.path.commonpath(roots)) if roots else None
    named = _named([*found.values()], folder, reserved)
    clips = [_clip(name, one, folder) for name, one in named.items()]
    return Shelf(folder, tuple(sorted(clips, key=lambda clip: natural_key(clip.name))))


def is_clip(source: str) -> bool:
    """Whether a source is files with an end: no device, and no URL, which may have none."""
    return not (URL.match(source) or source.isdecimal() or source.startswith("/dev/"))


def _named(found: list[Found], folder: Path | None, reserved: Collection[str]) -> dict[str, Found]:
    """Every source under a name of its own."""
    plain = [_CONTROL.sub("_", _plain_name(one, folder)) for one in found]
    counts = Counter(plain)
    named: dict[str, Found] = {}
    taken = {name.casefold() for name in reserved}
    for one, name in zip(found, plain, strict=True):
        if counts[name] > 1 or name.casefold() in taken:
            # Two files that differ in their suffix alone keep it: clip-mp4, clip-avi.
            name += Path(one.spec).suffix.replace(".", "-")  # noqa: PLW2901 (the final name)
        base, count = name, 1
        while name.casefold() in taken:
            count += 1
            name = f"{base}-{count}"  # noqa: PLW2901 (the same)
        taken.add(name.casefold())
        named[name] = one
    return named


def _plain_name(one: Found, folder: Path | None) -> str:
    if one.root is None or folder is None:
        return stream_name(one.spec, set())
    path = Path(one.spec).absolute()
    if Path(one.spec).is_dir() or is_pattern(one.spec):
        # The images of a folder; where they lie in the shelf's own folder, its name must do.
        inside = one.files[0].parent.absolute().relative_to(folder)
        return inside.as_posix() if inside.parts else (folder.name or "images")
    return path.relative_to(folder).with_suffix("").as_posix()


def _clip(name: str, one: Found, folder: Path | None) -> Clip:
    if one.root is None or folder is None:
        return Clip(name, one.spec, 0, hashlib.sha256(one.spec.encode()).hexdigest())
    source = Path(one.spec).absolute().relative_to(folder).as_posix()
    try:
        size = sum(path.stat().st_size for path in one.files if path.exists())
        return Clip(name, source, size, sampled_digest(one.files, folder))
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error
