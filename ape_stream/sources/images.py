"""Images as a stream: one image, a directory, a pattern, a list file, a numbered sequence."""

from __future__ import annotations

import glob
import logging
import math
import re
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from ape_stream.closing import Closing
from ape_stream.errors import SourceError, TruncatedError, reason_of
from ape_stream.sources.media import natural_key
from ape_stream.sources.pixels import count_images, read_animation, read_image
from ape_stream.specs import IMAGE_SUFFIXES
from ape_stream.types import Frame
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ImagesSource"]

_NUMBERED: Final = re.compile(r"%0?(\d*)d")
_NAMED: Final = 5
"""Images that could not be read, named in one line."""
_log = logging.getLogger("ape_stream")


class ImagesSource(Closing):
    """Images in natural order (frame2 before frame10), one every `1 / fps` seconds.

    Args:
        spec: An image, or an animation (PNG, WebP, AVIF) with all its images at their times; a
            directory; a pattern (`shots/*.png`, `frame_%04d.png`); or a `.txt` file
            with a path a line, relative to itself.
        name: Of the stream, written into every frame; None for the spec itself.
        fps: Images per second of the stream's clock, above 0.

    Raises:
        SourceError: on entering, nothing is there; while reading, no image can be read.
        TruncatedError: after the last image, some could not be read.
    """

    def __init__(self, spec: str, *, name: str | None = None, fps: float = 30.0) -> None:
        if not 0 < fps < math.inf:
            raise ValueError(f"fps is a number above 0, got {fps}")
        self.spec = spec
        self.name = name or spec
        self.live = False
        self._fps = fps
        self._paths: list[Path] = []
        self._count = 0  # of images
        self._wanted: Callable[[int, float], bool] | None = None

    @property
    def frame_count(self) -> int | None:
        """Number of images."""
        return self._count or None

    @property
    def rate(self) -> Fraction | None:
        """Images per second; see `KnowsRate`. Those of an animation have times of their own."""
        return None if self._is_animation else Fraction(self._fps)

    @property
    def _is_animation(self) -> bool:
        return self._count > len(self._paths)

    def keep(self, wanted: Callable[[int, float], bool]) -> None:
        """Read these images only; see `SkipsFrames`."""
        self._wanted = wanted

    def files(self) -> list[Path]:
        """The images, and the list that names them; see `ReadsFiles`."""
        return [Path(self.spec), *_paths(self.spec)]

    def check(self) -> None:
        """Refuse a place without an image that can be read; see `ChecksItself`."""
        self._find()
        problem: SourceError | None = None
        for path in self._paths:
            try:
                read_image(path)
            except SourceError as error:
                problem = problem or error
            else:
                return
        if problem is not None:
            raise problem

    def __enter__(self) -> Self:
        """Find the images."""
        self._find()
        return self

    def _find(self) -> None:
        self._paths = _paths(self.spec)
        if not self._paths:
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            raise SourceError(f"{self.spec} holds no images ({kinds}) and no videos")
        # An animation that is named is read as a whole; in a folder it is an image like the others.
        named = self._paths == [Path(self.spec)]
        self._count = count_images(self._paths[0]) if named else len(self._paths)

    def close(self, error: BaseException | None = None, /) -> None:
        """Nothing is held open."""

    def __iter__(self) -> Iterator[Frame]:
        """Read image after image; one that cannot be read leaves a gap. See `Source`.

        Raises:
            SourceError: none could be read.
            TruncatedError: after the last one, some could not be read; it names them.
        """
        if self._is_animation:
            yield from self._animated(self._paths[0])
            return
        problems = []
        for index, path in enumerate(self._paths):
            if self._wanted is not None and not self._wanted(index, index / self._fps):
                continue
            try:
                image = read_image(path)
            except SourceError as error:
                problems.append(error)
                # A frame's index is its position in the list, so an unreadable image leaves a gap.
                if len(problems) > _NAMED:  # the others are named at the end
                    _log.warning("%s", error)
                continue
            yield Frame(image, index, index / self._fps, self.name, time.monotonic_ns(), str(path))
        if len(problems) == len(self._paths):
            # Not "truncated": of a stream without any frame nothing was processed.
            raise problems[0]
        if problems:
            named = "; ".join(str(problem) for problem in problems[:_NAMED])
            raise TruncatedError(
                f"{len(problems)} of {len(self._paths)} images of {self.spec} could not be read:"
                f" {named}"
            )

    def _animated(self, path: Path) -> Iterator[Frame]:
        """The images of an animation; none is a file, so they have no `origin`."""
        index, time_s = 0, 0.0
        try:
            for index, (image, shown_s) in enumerate(read_animation(path)):
                if self._wanted is None or self._wanted(index, time_s):
                    yield Frame(image, index, time_s, self.name, time.monotonic_ns())
                time_s += shown_s or 1 / self._fps
        except SourceError as error:
            if not time_s:  # of a stream without any frame nothing was processed
                raise
            raise TruncatedError(f"{index + 1} of {self._count} images: {error}") from error


def _paths(spec: str) -> list[Path]:
    path = Path(spec)
    if path.is_dir():
        inside = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
        return sorted(inside, key=_by_name)
    if path.suffix.lower() == ".txt" and path.is_file():
        return _listed(path)
    if path.is_file():
        return [path]
    # A numbered sequence is no glob: brackets in its folder's name stand for themselves.
    pattern = glob.escape(spec) if _NUMBERED.search(spec) else spec
    found = [Path(p) for p in glob.glob(_NUMBERED.sub("[0-9]*", pattern))]  # noqa: PTH207 (absolute patterns)
    files = sorted((p for p in found if p.is_file()), key=_by_name)
    # Videos that match as well are sources of their own; without any suffix all are tried.
    return [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES] or files


def _listed(path: Path) -> list[Path]:
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the list of images {path}: {reason_of(error)}") from error
    named = [line.strip() for line in lines]
    return [path.parent / line for line in named if line and not line.startswith("#")]


def _by_name(path: Path) -> list[tuple[int, int, str]]:
    return natural_key(str(path))
