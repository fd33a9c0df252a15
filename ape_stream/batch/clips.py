"""Which clips a job has: files, folders, patterns and lists, each clip with a name and a digest.

A clip is a video, or the images of one folder. Its name is the folder of its outputs: the clip's
path below the folder that all sources share, so that outputs mirror the tree of the sources.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ape_stream.errors import UsageError
from ape_stream.specs import IMAGE_SUFFIXES, expand, source_plugin, stream_name
from ape_stream.text import read_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

__all__ = [
    "RESERVED",
    "VIDEO_SUFFIXES",
    "Clip",
    "Shelf",
    "clip_spec",
    "file_digest",
    "find_clips",
    "is_clip",
    "natural_key",
]

VIDEO_SUFFIXES: Final = frozenset(
    [
        ".3gp",
        ".asf",
        ".avi",
        ".dv",
        ".flv",
        ".h264",
        ".hevc",
        ".ivf",
        ".m2ts",
        ".m4v",
        ".mjpeg",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogv",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
        ".y4m",
    ]
)
"""Suffixes of what is taken as a video inside a folder; a file that is named may have any."""

RESERVED: Final = frozenset(("failed.jsonl", "plan.json", "report.html", "summary.json"))
"""Names that the job itself writes into the output folder."""

_SAMPLE: Final = 1 << 16
"""Bytes read at the head, the middle and the end of a file for its digest."""
_PATTERN: Final = re.compile(r"[*?\[]")
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DIGITS: Final = re.compile(r"(\d+)")


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
    """Of its content; see `file_digest`."""


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
    if folder is None or _URL.match(clip.source):
        return clip.source
    return str(folder / clip.source)


@dataclass(frozen=True, slots=True)
class _Found:
    """A source before it has a name."""

    spec: str
    """What opens it."""
    root: Path | None
    """The folder of its own source; None for what is no file."""
    files: tuple[Path, ...]
    """The files that it reads."""


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
    found: dict[str, _Found] = {}
    for source in sources:
        for one in _of(source, skip):
            # The same file by two ways is one clip.
            found.setdefault(os.path.realpath(one.spec) if one.root else one.spec, one)
    if not found:
        raise UsageError(f"no video and no image in {', '.join(sources)}")
    roots = [str(one.root.absolute()) for one in found.values() if one.root is not None]
    folder = Path(os.path.commonpath(roots)) if roots else None
    named = _named([*found.values()], folder, reserved)
    clips = [_clip(name, one, folder) for name, one in named.items()]
    return Shelf(folder, tuple(sorted(clips, key=lambda clip: natural_key(clip.name))))


def is_clip(source: str) -> bool:
    """Whether a source is files with an end: no device, and no URL, which may have none."""
    return not (_URL.match(source) or source.isdecimal() or source.startswith("/dev/"))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts clip2 before clip10."""
    # Every part becomes (is a number, number, text): tuples of one shape compare.
    return [(1, int(p), "") if p.isdecimal() else (0, 0, p) for p in _DIGITS.split(name)]


def _of(source: str, skip: Path | None) -> Iterator[_Found]:
    path = Path(source)
    if _URL.match(source):
        yield _Found(source, None, ())
    elif source and path.is_dir():
        yield from _in_folder(path, skip)
    elif not path.exists() and _PATTERN.search(source):
        yield from _matching(source, skip)
    elif path.suffix.lower() in {".txt", ".streams"} and path.is_file():
        yield from _listed(path, skip)
    else:
        source_plugin(source)  # raises where it is nothing at all
        yield _Found(source, path.parent, (path,))


def _in_folder(root: Path, skip: Path | None) -> Iterator[_Found]:
    def refuse(error: OSError) -> None:
        raise UsageError(f"cannot read the folder {error.filename}: {error.strerror}")

    for at, folders, names in os.walk(root, onerror=refuse):
        folder = Path(at)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (skip is None or (folder / name).resolve() != skip)
        )
        files = [folder / name for name in sorted(names) if not name.startswith(".")]
        yield from _media(files, folder, "", root)


def _media(files: list[Path], folder: Path, pattern: str, root: Path) -> Iterator[_Found]:
    """The videos among files, and their images as one clip.

    Args:
        files: All in one folder.
        folder: That folder.
        pattern: What the images' names match; empty for all of them.
        root: The folder that names count from.
    """
    images = tuple(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    if images:
        spec = str(Path(glob.escape(str(folder))) / pattern) if pattern else str(folder)
        yield _Found(spec, root, images)
    for path in files:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield _Found(str(path), root, (path,))


def _matching(pattern: str, skip: Path | None) -> Iterator[_Found]:
    paths = [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 (absolute patterns)
    fixed = list(_fixed_parts(Path(pattern)))
    root = Path(*fixed) if fixed else Path()
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        if path.is_dir():
            if skip is None or path.resolve() != skip:
                yield from (_Found(one.spec, root, one.files) for one in _in_folder(path, skip))
        elif skip is None or skip not in path.resolve().parents:
            by_folder.setdefault(path.parent, []).append(path)
    for folder, files in by_folder.items():
        yield from _media(files, folder, Path(pattern).name, root)


def _fixed_parts(pattern: Path) -> Iterator[str]:
    """The folders of a pattern before its first wildcard."""
    for part in pattern.parts[:-1]:
        if _PATTERN.search(part):
            return
        yield part


def _listed(listing: Path, skip: Path | None) -> Iterator[_Found]:
    """A list of paths, a line each; one of images alone is one clip, in its own order."""
    if listing.suffix.lower() == ".streams":
        lines = expand(str(listing))
    else:
        try:
            given = [line.strip() for line in read_text(listing).splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the list {listing}: {error}") from error
        lines = [
            line if _URL.match(line) else str(listing.parent / line)
            for line in given
            if line and not line.startswith("#")
        ]
        if lines and all(Path(line).suffix.lower() in IMAGE_SUFFIXES for line in lines):
            files = (listing, *map(Path, lines))
            yield _Found(str(listing), listing.parent, files)
            return
    if not lines:
        raise UsageError(f"the list {listing} names nothing: write one path a line")
    for line in lines:
        yield from _of(line, skip)


def _named(
    found: list[_Found], folder: Path | None, reserved: Collection[str]
) -> dict[str, _Found]:
    """Every source under a name of its own."""
    plain = [_plain_name(one, folder) for one in found]
    named: dict[str, _Found] = {}
    taken = {name.casefold() for name in reserved}
    for one, name in zip(found, plain, strict=True):
        if plain.count(name) > 1 or name.casefold() in taken:
            # Two files that differ in their suffix alone keep it: clip-mp4, clip-avi.
            name += Path(one.spec).suffix.replace(".", "-")  # noqa: PLW2901 (the final name)
        base, count = name, 1
        while name.casefold() in taken:
            count += 1
            name = f"{base}-{count}"  # noqa: PLW2901 (the same)
        taken.add(name.casefold())
        named[name] = one
    return named


def _plain_name(one: _Found, folder: Path | None) -> str:
    if one.root is None or folder is None:
        return stream_name(one.spec, set())
    path = Path(one.spec).absolute()
    if Path(one.spec).is_dir() or _PATTERN.search(path.name):
        # The images of a folder; where they lie in the shelf's own folder, its name must do.
        inside = one.files[0].parent.absolute().relative_to(folder)
        return inside.as_posix() if inside.parts else (folder.name or "images")
    return path.relative_to(folder).with_suffix("").as_posix()


def _clip(name: str, one: _Found, folder: Path | None) -> Clip:
    if one.root is None or folder is None:
        return Clip(name, one.spec, 0, hashlib.sha256(one.spec.encode()).hexdigest())
    source = Path(one.spec).absolute().relative_to(folder).as_posix()
    try:
        size = sum(path.stat().st_size for path in one.files if path.exists())
        return Clip(name, source, size, file_digest(one.files, folder))
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error


def file_digest(files: Iterable[Path], folder: Path | None = None) -> str:
    """SHA-256 (hex) over the names, sizes and samples of files.

    Samples are the first, middle and last 64 KiB: a shelf of videos is not read as a whole before
    the work begins. A file that cannot be read has its name alone.

    Args:
        files: The files, in order.
        folder: What their names count from; None takes the bare names.
    """
    digest = hashlib.sha256()
    for path in files:
        shown = path.name if folder is None else os.path.relpath(path.absolute(), folder)
        digest.update(f"{shown}\0".encode(errors="surrogateescape"))
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                digest.update(f"{size}\0".encode())
                for at in sorted({0, max(0, (size - _SAMPLE) // 2), max(0, size - _SAMPLE)}):
                    file.seek(at)
                    digest.update(file.read(_SAMPLE))
        except OSError:
            digest.update(b"unreadable\0")
    return digest.hexdigest()
