"""Videos of a drawn world as a source: `synthetic://SEED?size=320x240&fps=30&frames=300`.

Options after the question mark:

    size=WIDTHxHEIGHT   pixels (320x240)
    fps=30              frames per second
    frames=300          how many frames; 0 = endless
    live=1              delivered by the clock, as a camera does; 0 = as fast as they are wanted
    cast=fox,red apple  names of the only things that may appear; default: all of the world
    occlusion=1         things may hide behind one another entirely
    world=emoji         which plugin of the group `ape_stream.worlds` draws
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from ape_stream import plugins
from ape_stream.closing import Closing
from ape_stream.errors import UsageError
from ape_stream.tables import read_size
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_stream.protocols.worlds import Video, World

__all__ = ["SyntheticSource"]

DEFAULTS = {
    "size": "320x240",
    "fps": "30",
    "frames": "300",
    "live": "0",
    "cast": "",
    "occlusion": "0",
    "world": "emoji",
}
MAX_SIDE = 8192
"""Longest side that is drawn, pixels: a typing error must not fill the memory."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the address asks for."""

    seed: int
    size: tuple[int, int]
    fps: float
    frames: int
    live: bool
    cast: tuple[str, ...]
    occlusion: bool
    world: str


def _parse(spec: str) -> _Wish:
    parts = urlsplit(spec)
    options = DEFAULTS | _options(parts.query)
    seed = unquote(parts.netloc) or "0"
    if not seed.isdecimal() or parts.path.strip("/"):
        raise UsageError(f"{spec!r}: a synthetic source is synthetic://SEED?option=value")
    names = (name.strip() for name in options["cast"].split(","))
    return _Wish(
        seed=int(seed),
        size=_size(options["size"]),
        fps=_number("fps", options["fps"]),
        frames=int(_number("frames", options["frames"], whole=True)),
        live=_flag("live", options["live"]),
        cast=tuple(name for name in names if name),
        occlusion=_flag("occlusion", options["occlusion"]),
        world=options["world"],
    )


def _options(query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise UsageError(f"synthetic:// has no option {unknown[0]!r}; it has {', '.join(DEFAULTS)}")
    return given


def _size(text: str) -> tuple[int, int]:
    size = read_size(text, "size of a synthetic source", UsageError)
    if max(size) > MAX_SIDE:
        raise UsageError(f"size of a synthetic source is at most {MAX_SIDE} pixels, not {text!r}")
    return size


def _number(name: str, text: str, *, whole: bool = False) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        # Refused below, together with negative, infinite and NaN numbers.
        value = -1
    if not (0 <= value < float("inf")):
        raise UsageError(f"{name} of a synthetic source is a number >= 0, not {text!r}")
    return value


def _flag(name: str, text: str) -> bool:
    if text not in {"0", "1"}:
        raise UsageError(f"{name} of a synthetic source is 0 or 1, not {text!r}")
    return text == "1"


class SyntheticSource(Closing):
    """Frames of a world's video.

    Args:
        spec: The address, see the head of this file.
        name: The stream's name.

    Raises:
        UsageError: the address cannot be understood, or no such world is installed.
    """

    def __init__(self, spec: str, *, name: str) -> None:
        self._wish = _parse(spec)
        self.name = name
        self.live = self._wish.live
        self._left = Event()
        self._video: Video = self._open()

    def _open(self) -> Video:
        wish = self._wish
        world: World = plugins.make("worlds", wish.world, options={})
        try:
            return world.video(
                wish.seed,
                wish.size,
                fps=wish.fps,
                cast=wish.cast,
                full_occlusion=wish.occlusion,
            )
        except ValueError as error:
            raise UsageError(f"synthetic source: {error}") from error

    @property
    def frame_count(self) -> int | None:
        """How many frames there will be; None for an endless video."""
        return self._wish.frames or None

    def __enter__(self) -> Self:
        self._left.clear()
        return self

    def close(self, _: BaseException | None = None, /) -> None:
        """Wake whoever waits for the next frame's time."""
        self._left.set()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; a live source gives each one at its time, and never early."""
        started = time.monotonic()
        index = 0
        while not self._left.is_set() and (not self._wish.frames or index < self._wish.frames):
            # From the index, not added up: no rounding error grows, and a late frame catches up.
            due = index / self._wish.fps
            # `wait` is a sleep that `__exit__` can end: True means that the source was left.
            if self.live and self._left.wait(max(0.0, started + due - time.monotonic())):
                return
            image = self._video.scene(index).image
            yield Frame(image, index, due, self.name, time.monotonic_ns())
            index += 1
