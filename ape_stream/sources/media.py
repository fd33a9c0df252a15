"""Which sources a string of the user stands for: the files of folders, patterns and lists."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ape_stream.errors import UsageError, reason_of
from ape_stream.specs import IMAGE_SUFFIXES, checked_path, source_plugin, without_file_url
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["URL", "VIDEO_SUFFIXES", "Found", "expand", "find_media", "is_pattern", "natural_key"]

VIDEO_SUFFIXES: Final = frozenset(
    [
        ".3gp",
        ".asf",
        ".avi",
        ".dv",
        ".flv",
        ".gif",
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
_PATTERN: Final = re.compile(r"[*?\[]")
URL: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DIGITS: Final = re.compile(r"(\d+)")
_LISTS: Final = frozenset((".streams", ".txt"))


@dataclass(frozen=True, slots=True)
class Found:
    """A source: one video, the images of one folder, or what is no file."""

    spec: str
    """What opens it."""
    root: Path | None
    """The folder of what the user named; None for what is no file."""
    files: tuple[Path, ...]
    """The files that it reads."""


def expand(spec: str) -> list[str]:
    """The sources that a string stands for; itself where it is none of a folder, pattern, list.

    A folder and a pattern stand for each video, and for the images of each folder. A list
    (`.streams`, `.txt`) stands for its lines; one of images alone is one source. A `file://` URL
    stands for its path.

    Raises:
        UsageError: a list or folder cannot be read, or names nothing.
    """
    spec = without_file_url(spec)
    if not URL.match(spec):
        checked_path(spec)
    if _is_list(spec):
        lines = _lines(Path(spec))
        return [one for line in lines for one in expand(line)] or [spec]
    several = is_pattern(spec) or (spec and Path(spec).is_dir())
    found = [one.spec for one in find_media(spec)] if several else []
    return found or [spec]


def find_media(source: str, skip: Path | None = None) -> Iterator[Found]:
    """The sources that a file, folder, pattern, list, device or URL stands for.

    Args:
        source: What the user named.
        skip: A folder, resolved, that is left out wherever it is.

    Raises:
        UsageError: it does not exist or cannot be read, or a list names nothing.
    """
    if URL.match(source):
        yield Found(source, None, ())
        return
    path = checked_path(source)
    if source and path.is_dir():
        yield from _in_folder(path, skip)
    elif is_pattern(source):
        yield from _matching(source, skip)
    elif _is_list(source):
        lines = _lines(path)
        images = [] if lines else [path.parent / line for line in _given(path)]
        if images:
            yield Found(source, path.parent, (path, *images))
        for line in lines:
            yield from find_media(line, skip)
    else:
        source_plugin(source)  # raises where it is nothing at all
        yield Found(source, path.parent, (path,))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts clip2 before clip10."""
    # Every part becomes (is a number, number, text): tuples of one shape compare.
    return [(1, int(p), "") if p.isdecimal() else (0, 0, p) for p in _DIGITS.split(name)]


def is_pattern(source: str) -> bool:
    """Whether a source stands for files; one whose own name holds a bracket is a file."""
    return bool(_PATTERN.search(source)) and not URL.match(source) and not Path(source).exists()


def _in_folder(root: Path, skip: Path | None) -> Iterator[Found]:
    def refuse(error: OSError) -> None:
        raise UsageError(f"cannot read the folder {error.filename}: {error.strerror}")

    for at, folders, names in os.walk(root, onerror=refuse):
        folder = Path(at)
        folders[:] = sorted(
            (
                name
                for name in folders
                if not name.startswith(".") and (skip is None or (folder / name).resolve() != skip)
            ),
            key=natural_key,
        )
        shown = sorted((name for name in names if not name.startswith(".")), key=natural_key)
        yield from _media([folder / name for name in shown], folder, "", root)


def _media(files: list[Path], folder: Path, pattern: str, root: Path) -> Iterator[Found]:
    """The videos among files, and their images as one source.

    Args:
        files: All in one folder.
        folder: That folder.
        pattern: What the images' names match; empty for all of them.
        root: The folder that names count from.
    """
    images = tuple(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    if images:
        spec = str(Path(glob.escape(str(folder))) / pattern) if pattern else str(folder)
        yield Found(spec, root, images)
    for path in files:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield Found(str(path), root, (path,))


def _matching(pattern: str, skip: Path | None) -> Iterator[Found]:
    paths = [Path(p) for p in sorted(glob.glob(pattern, recursive=True), key=natural_key)]  # noqa: PTH207 (absolute patterns)
    fixed = list(_fixed_parts(Path(pattern)))
    root = Path(*fixed) if fixed else Path()
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        if path.is_dir():
            if skip is None or path.resolve() != skip:
                yield from (Found(one.spec, root, one.files) for one in _in_folder(path, skip))
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


def _is_list(source: str) -> bool:
    return Path(source).suffix.lower() in _LISTS and not URL.match(source)


def _lines(listing: Path) -> list[str]:
    """The sources that a list names; none for a `.txt` of images alone, which is one source.

    Raises:
        UsageError: it cannot be read, names nothing, or names a list.
    """
    given = _given(listing)
    kind = listing.suffix.lower()
    if kind == ".txt" and all(Path(line).suffix.lower() in IMAGE_SUFFIXES for line in given):
        return []
    lines = [_relative_to(listing, line) for line in given]
    if inner := next(filter(_is_list, lines), None):
        raise UsageError(f"the list of sources {listing} names a list, {inner}: give it by itself")
    return lines


def _given(listing: Path) -> list[str]:
    """The lines of a list that say something."""
    try:
        lines = [line.strip() for line in read_text(listing).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the list of sources {listing}: {reason_of(error)}"
        ) from error
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise UsageError(f"the list of sources {listing} names nothing: write one source a line")
    return lines


def _relative_to(listing: Path, line: str) -> str:
    line = without_file_url(line)
    if URL.match(line) or (line.isdecimal() and listing.suffix.lower() == ".streams"):
        return line
    return str(listing.parent / line)
