"""Which plugin a string of the user goes to: sources and sinks are chosen by what they look like.

Sources (entry-point name <- string):
    <scheme>    `<scheme>://...`: rtsp, http, udp, tcp, synthetic, camera, or any plugin's
    camera      a device number (`0`) or `/dev/video0`
    images      a directory, a glob (`shots/*.png`), a numbered sequence (`frame_%04d.png`), a
                image, or a list of images (`.txt`)
    video       any other file
    What stands for several (folders, patterns, lists) is opened first, by `sources.media.expand`.

Sinks:
    <scheme>    `<scheme>:...`: zmq, ros2, or any plugin's
    <suffix>    `out.mp4` -> mp4, `out.jsonl` -> jsonl, `out.json` -> json (COCO), ...
    labels      a directory: `labels/`; `semantic/` and `panoptic/` go to plugins of these names
    <name>      a bare word that names a plugin: `window`
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ape_stream.errors import UsageError, reason_of

__all__ = [
    "IMAGE_SUFFIXES",
    "checked_path",
    "sink_plugin",
    "source_plugin",
    "stream_name",
    "without_file_url",
]

IMAGE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
"""Suffixes of files that are one image each."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# Two letters at least: `C:` begins a path on Windows.
_SINK_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_MAP_FOLDERS = ("semantic", "panoptic")
_SHOWN = 60
"""Characters of a source in a message."""
_LONGEST_NAME = 200
"""Bytes of a stream's name: it becomes the name of a folder, and systems allow 255."""
_PATTERN = re.compile(r"[*?\[]|%0?\d*d")


def source_plugin(spec: str) -> str:
    """The entry-point name of a source.

    Raises:
        UsageError: the string is empty, or names a file that does not exist.
    """
    if scheme := _SCHEME.match(spec):
        return scheme[1].lower()
    # Before files: a file that is called `0` needs `./0`.
    if spec.isdecimal() or spec.startswith("/dev/video"):
        return "camera"
    return _file_plugin(spec)


def _file_plugin(spec: str) -> str:
    path = checked_path(spec)
    # A file whose own name holds a bracket is a file, not a pattern.
    if spec and not path.exists() and _PATTERN.search(spec):
        return "images"
    if spec == "-":
        raise UsageError("standard input is not read as a source: give a file or a URL")
    if not spec or not path.exists():
        raise UsageError(f"no such source: {spec!r} is no file, directory, pattern, device or URL")
    images = path.is_dir() or path.suffix.lower() in {*IMAGE_SUFFIXES, ".txt"}
    return "images" if images else "video"


def checked_path(spec: str) -> Path:
    """A path that the system can look for, whether or not it is there.

    Raises:
        UsageError: no file can have that name, or nobody may look.
    """
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            # `Path.exists` says False, too, for a name that is too long or that nobody may look at:
            # ask the system for the reason.
            os.lstat(spec)
    except (OSError, ValueError) as error:
        shown = spec if len(spec) <= _SHOWN else f"{spec[:_SHOWN]}..."
        raise UsageError(f"cannot use {shown!r} as a file name: {reason_of(error)}") from error
    return Path(spec)


def without_file_url(spec: str) -> str:
    """The path of a `file://` URL (RFC 8089), and every other source as it is."""
    if not spec.lower().startswith("file://"):
        return spec
    url = urlsplit(spec)
    if url.netloc not in {"", "localhost"}:
        raise UsageError(f"{spec} names a file of another machine: write file:///path")
    # A `?` belongs to the name: files have no queries.
    return url2pathname(spec[spec.index("/", len("file://")) :])


def sink_plugin(spec: str) -> str:
    """The entry-point name of a sink.

    Raises:
        UsageError: the string is empty.
    """
    if not spec:
        raise UsageError(
            "an output is empty: give a file, a directory, window, zmq:... or ros2:..."
        )
    if scheme := _SINK_SCHEME.match(spec):
        return scheme[1].lower()
    path = checked_path(spec)
    # A folder called out.mp4 is in the way of a video, and no place for label maps.
    if spec.endswith("/") or (not path.suffix and path.is_dir()):
        name = Path(spec).name
        return name if name in _MAP_FOLDERS else "labels"
    return path.suffix[1:].lower() or spec


def stream_name(spec: str, taken: set[str]) -> str:
    """A short name for a stream that nobody named, unlike those already taken.

    `clips/red.mp4` gives `red`, `rtsp://user:secret@gate/cam` gives `gate-cam`, `0` gives `0`.
    A second `red` becomes `red-2`.
    """
    scheme = _SCHEME.match(spec)
    # What stands before @ is a password: names are written into every output.
    tail = spec[scheme.end() :].rpartition("@")[2].partition("?")[0] if scheme else Path(spec).stem
    base = re.sub(r"[^\w.]+", "-", tail).strip("-.") or (scheme[1] if scheme else "stream")
    # Cut by bytes; "ignore" drops a character that was cut in half.
    base = base.encode()[:_LONGEST_NAME].decode(errors="ignore")
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}-{count}"
    return name
