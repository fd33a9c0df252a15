"""One stream on its way to the viewers: the newest image, the newest result, both encoded once.

    source thread --see--> [newest frame]  --+
                                             +--> thread of the camera --> event loop --> viewers
    run's thread --take--> [newest result] --+

Nothing waits: a newer frame takes the slot of the older one. What nobody wants is not encoded.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from ape_nodes.web import protocol
from ape_nodes.web.encoding.images import H264Encoder, Variant, encode_jpeg
from ape_nodes.web.encoding.labels import pack_label_map
from ape_nodes.web.encoding.views import has_view, regions_of
from ape_nodes.web.protocol import BinaryHead
from ape_nodes.web.zones.counting import Zones
from ape_stream.stats import Durations, Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_stream.types import Frame, FrameResult

__all__ = ["STALE_S", "Camera", "Encoded", "Found"]

STALE_S: Final = 1.0
"""An image that is older is not shown as live."""
KEY_EVERY_S: Final = 1.0
"""Key frames on demand come no more often."""
_log = logging.getLogger("ape_stream")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """A result, with what the page needs to know of its prompts and zones."""

    result: FrameResult
    rev: int
    prompt_ids: tuple[int, ...]
    """The page's id of the prompt at each position of the result's prompts."""
    counts: dict[str, Any] | None
    """By zone, or None where there are none."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A binary message for all viewers of a kind."""

    variant: Variant
    serial: int
    """Counted per camera: what has a larger one is newer."""
    frame: bytes
    """As a WebSocket frame, the same for all viewers."""
    start: int = 0
    """Where in the frame the message begins."""
    key: bool = True
    """Whether it can be decoded without what came before."""

    @property
    def message(self) -> bytes:
        """The message without the frame's head; copied."""
        return self.frame[self.start :]


class Camera:
    """Encodes one stream.

    Args:
        index: Its position in the page.
        name: The stream's name.
        deliver: Takes messages; called in the camera's thread.
        hide: Changes the pixels of a result before they are shown; None leaves them. With it,
            images come from results only, never before the model has seen them.
    """

    def __init__(
        self,
        index: int,
        name: str,
        deliver: Callable[[Camera, Sequence[Encoded]], None],
        hide: Callable[[FrameResult], FrameResult] | None = None,
    ) -> None:
        self.index = index
        self.name = name
        self.encode = Durations()
        """Encodings of images; written by the camera's thread only."""
        self.encode_cpu_s = 0.0
        """Their CPU time in this thread, all together: the encoders' part of the cost."""
        self.arrived_s: float | None = None
        """When the newest frame came."""
        self.newest: FrameResult | None = None
        """The newest result, as it may be shown."""
        self.zones = Zones(name)
        self._deliver = deliver
        self._hide = hide
        self._wake = threading.Condition()
        self._frame_rate, self._result_rate = Rate(), Rate()
        self._closing = False
        self._frame: tuple[int, Frame] | None = None
        self._found: tuple[int, Found] | None = None
        self._serial = 0
        self._wanted: frozenset[Variant] = frozenset()
        self._done: dict[Variant, int] = {}
        self._h264: dict[int, H264Encoder] = {}
        self._keys: set[int] = set()
        self._again: set[Variant] = set()
        self._thread = threading.Thread(target=self._work, name=f"camera {name}", daemon=True)

    def start(self) -> None:
        """Begin to encode."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(2.0)

    # -- from the run's threads -----------------------------------------------------------

    def see(self, frame: Frame) -> None:
        """Take a frame before the model has it; never waits."""
        self.arrived_s = time.monotonic()
        if self._hide is None:
            with self._wake:
                self._serial += 1
                self._frame = (self._serial, frame)
                self._frame_rate.tick(self.arrived_s)
                self._wake.notify_all()

    def take(self, found: Found) -> FrameResult:
        """Take a result; never waits. Returns it as it may be shown."""
        if self._hide is not None:
            found = replace(found, result=self._hide(found.result))
        # After hiding: what is outside of where to look is hidden, too.
        found = replace(found, result=self.zones.looked(found.result))
        self.arrived_s = self.arrived_s or time.monotonic()
        self.newest = found.result
        with self._wake:
            self._serial += 1
            self._found = (self._serial, found)
            self._result_rate.tick(time.monotonic())
            if self._hide is not None:
                self._frame_rate.tick(time.monotonic())
                self._frame = (self._serial, found.result.frame)
            self._wake.notify_all()
        return found.result

    # -- from the event loop --------------------------------------------------------------

    @property
    def state(self) -> Literal["waiting", "up", "stale"]:
        """Whether images come."""
        if self.arrived_s is None:
            return "waiting"
        return "up" if time.monotonic() - self.arrived_s < STALE_S else "stale"

    def hz(self, *, results: bool) -> float:
        """Images a second that there are: frames, or results."""
        with self._wake:
            return (self._result_rate if results else self._frame_rate).hz(time.monotonic())

    def want(self, wanted: frozenset[Variant]) -> None:
        """Say what somebody has room for."""
        if wanted != self._wanted:
            with self._wake:
                self._wanted = wanted
                self._wake.notify_all()

    def repeat(self, image: Variant, masks: Variant) -> None:
        """Deliver the newest image and masks once more: a viewer has come since.

        Not for H.264, whose units build on one another.
        """
        if image.codec != "h264":
            with self._wake:
                self._again |= {image, masks}
                self._wake.notify_all()

    def want_key(self, width: int) -> None:
        """Ask for an H.264 key frame; there is at most one a second."""
        with self._wake:
            self._keys.add(width)

    # -- the thread -----------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                while not (due := self._due()) and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return
                frame, found = self._frame, self._found
                self._again -= {*due}
            ready: list[Encoded] = []
            for variant in due:
                try:
                    ready.append(self._encoded(variant, frame, found))
                except Exception:  # noqa: BLE001 (any: see below)
                    # One image is lost, not the page; the next one may be of another size.
                    _log.exception("%s: an image cannot be encoded", self.name)
                # Masks go out with the image that follows: the event loop is woken once.
                if ready and (variant.codec != "masks" or variant == due[-1]):
                    self._deliver(self, ready)
                    ready = []

    def _due(self) -> list[Variant]:
        """What is wanted and newer than what was delivered.

        Masks first, they are quick; small images, those of slow viewers, last.
        """
        return sorted(
            (v for v in self._wanted if self._latest(v) > self._known(v)),
            key=lambda variant: (variant.codec != "masks", -variant.width),
        )

    def _known(self, variant: Variant) -> int:
        return 0 if variant in self._again else self._done.get(variant, 0)

    def _latest(self, variant: Variant) -> int:
        if not variant.has_masks:
            return 0 if self._frame is None else self._frame[0]
        # The first results after somebody has asked for maps may come without.
        missing = self._found is None or not has_view(self._found[1].result, variant.view)
        return 0 if missing or self._found is None else self._found[0]

    def _encoded(
        self,
        variant: Variant,
        frame: tuple[int, Frame] | None,
        found: tuple[int, Found] | None,
    ) -> Encoded:
        if variant.has_masks:
            assert found is not None  # noqa: S101 (`_latest` is 0 without one)
            self._done[variant] = found[0]
            return Encoded(variant, found[0], *self._masks(found[1], variant))
        assert frame is not None  # noqa: S101 (the same)
        self._done[variant] = frame[0]
        return self._image(variant, frame[0], frame[1])

    def _masks(self, found: Found, variant: Variant) -> tuple[bytes, int]:
        result = found.result
        labels, rows = regions_of(result, variant.view)
        dets = [[found.prompt_ids[prompt], *row] for prompt, *row in rows]
        meta = {**_meta(result.frame), "dets": dets, "timings": _rounded(result.timings)}
        if variant.view != "instances":
            meta["view"] = variant.view
        if found.counts is not None:
            meta["counts"] = found.counts
        image = b""
        if variant.codec == "sync":
            image = self._jpeg(result.frame, variant.width, meta)
        kind = protocol.SYNCED if variant.codec == "sync" else protocol.MASKS
        # Next to JPEGs, thirty times as large, deflate is not worth its fifth of a millisecond.
        small = any(wanted.codec == "h264" for wanted in self._wanted)
        packed = pack_label_map(labels, small=small)
        head = self._head(kind, result.frame, found.rev)
        return protocol.pack_frame(head, meta, packed, image)

    def _image(self, variant: Variant, serial: int, frame: Frame) -> Encoded:
        meta = _meta(frame)
        if variant.codec == "h264":
            kind = protocol.H264
            image, key = self._h264_unit(frame, variant.width, meta)
        else:
            kind, key = protocol.JPEG, True
            image = self._jpeg(frame, variant.width, meta)
        head = self._head(kind, frame, 0, protocol.KEY if key else 0)
        return Encoded(variant, serial, *protocol.pack_frame(head, meta, b"", image), key)

    def _jpeg(self, frame: Frame, width: int, meta: dict[str, Any]) -> bytes:
        """The frame as a JPEG; notes in `meta` how long it took."""
        image, meta["encode_ms"] = self._timed(partial(encode_jpeg, frame.image, width))
        return image

    def _h264_unit(self, frame: Frame, width: int, meta: dict[str, Any]) -> tuple[bytes, bool]:
        """The frame as an access unit, and whether it is a key frame; `meta` as in `_jpeg`."""
        encoder = self._h264.get(width)
        if encoder is None:
            encoder = self._h264[width] = H264Encoder(width)
        asked = width in self._keys and encoder.since_key_s >= KEY_EVERY_S
        work = partial(encoder.encode, frame.image, key=asked)
        (image, key), meta["encode_ms"] = self._timed(work)
        meta["codec"] = encoder.codec
        if key:
            self._keys.discard(width)
        return image, key

    def _timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """What an encoder returns, and how long it took, milliseconds."""
        start, cpu_s = time.monotonic(), time.thread_time()
        done = work()
        self.encode_cpu_s += time.thread_time() - cpu_s
        took_s = time.monotonic() - start
        self.encode.add(took_s)
        return done, round(1e3 * took_s, 2)

    def _head(self, kind: int, frame: Frame, rev: int, flags: int = 0) -> BinaryHead:
        now_us = time.monotonic_ns() // 1000
        return BinaryHead(
            kind, self.index, frame.index, frame.captured_ns // 1000, rev, flags, now_us
        )


def _meta(frame: Frame) -> dict[str, Any]:
    return {"time": round(frame.time_s, 6), "size": list(frame.size)}


def _rounded(timings: Any) -> dict[str, float]:
    return {name: round(ms, 2) for name, ms in timings.items()}
