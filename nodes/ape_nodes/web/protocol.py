"""Messages of the live page, protocol `ape-stream.v1` (docs/reference/live-protocol.md).

Images and masks are binary: a head of 40 bytes, a JSON object, the label map, the image. All else
is JSON text. What a page sends is read strictly: an unknown key or a wrong type is an error with a
reason, never a guess.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal

from ape_stream.errors import UsageError
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = [
    "MASKS",
    "PROTOCOL",
    "Ack",
    "BinaryHead",
    "Camera",
    "Hello",
    "Ping",
    "PromptOp",
    "PromptsSet",
    "Record",
    "Snapshot",
    "Subscribe",
    "Unsubscribe",
    "View",
    "Visible",
    "Zone",
    "ZonesSet",
    "pack",
    "pack_frame",
    "read_message",
    "unpack",
]

PROTOCOL: Final = "ape-stream.v1"
"""WebSocket subprotocol that both sides must name."""

JPEG: Final = 1
H264: Final = 2
MASKS: Final = 3
SYNCED: Final = 4
"""Kinds of binary messages: an image, an H.264 access unit, masks, masks with their own image."""
CAMERA_IMAGE: Final = 5
"""The kind that a page sends: a JPEG of its own camera."""
KEY: Final = 1
"""Flag: an H.264 access unit that can be decoded without others."""

MAX_TEXT_CHARS: Final = 200
"""Longest prompt that a page may add."""
View = Literal["instances", "semantic", "panoptic"]
"""What masks show: the regions that were found, the prompt of every pixel, or its segment."""
_HEAD: Final = struct.Struct("<2sBBHHIIQQII")
_BINARY: Final = 0x82
"""First byte of a WebSocket frame that is a whole binary message."""
_FRAME_HEADS: Final = (struct.Struct(">BB"), struct.Struct(">BBH"), struct.Struct(">BBQ"))
_MAGIC: Final = b"AP"
_VERSION: Final = 1
_MAX_POINTS: Final = 64
_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class BinaryHead:
    """The first 40 bytes of a binary message."""

    kind: int
    """JPEG 1, H264 2, MASKS 3, SYNCED 4, CAMERA_IMAGE 5."""
    cam: int
    """Position of the camera in `welcome`."""
    seq: int
    """The frame's index at its source, modulo 2^32; masks have that of their frame."""
    captured_us: int
    """When the source delivered the frame, microseconds on the server's monotonic clock."""
    prompt_rev: int = 0
    """Revision of the prompts that masks were found with."""
    flags: int = 0
    """KEY, or 0."""
    sent_us: int = 0
    """When the message was encoded, on the same clock; the same for all viewers."""


def pack(head: BinaryHead, meta: Mapping[str, Any], mask: bytes = b"", image: bytes = b"") -> bytes:
    """Write a binary message."""
    return b"".join(_parts(head, meta, mask, image))


def pack_frame(
    head: BinaryHead, meta: Mapping[str, Any], mask: bytes = b"", image: bytes = b""
) -> tuple[bytes, int]:
    """Write a binary message as a WebSocket frame (RFC 6455, 5.2) of a server.

    Returns:
        The frame, and where in it the message begins.
    """
    parts = _parts(head, meta, mask, image)
    size = sum(map(len, parts))
    if size < 126:
        start = _FRAME_HEADS[0].pack(_BINARY, size)
    elif size < 1 << 16:
        start = _FRAME_HEADS[1].pack(_BINARY, 126, size)
    else:
        start = _FRAME_HEADS[2].pack(_BINARY, 127, size)
    return b"".join((start, *parts)), len(start)


def _parts(
    head: BinaryHead, meta: Mapping[str, Any], mask: bytes, image: bytes
) -> tuple[bytes, bytes, bytes, bytes]:
    text = _COMPACT.encode(meta).encode()
    fixed = _HEAD.pack(
        _MAGIC, _VERSION, head.kind, head.cam, head.flags, head.seq & 0xFFFFFFFF,
        head.prompt_rev & 0xFFFFFFFF, head.captured_us, head.sent_us, len(text), len(mask),
    )  # fmt: skip
    return fixed, text, mask, image


def unpack(data: bytes) -> tuple[BinaryHead, dict[str, Any], bytes, bytes]:
    """Read a binary message: head, JSON object, label map, image.

    Raises:
        UsageError: it is none.
    """
    if len(data) < _HEAD.size:
        raise UsageError("a binary message begins with a head of 40 bytes")
    magic, version, kind, cam, flags, seq, rev, captured, sent, n, m = _HEAD.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION):
        raise UsageError(f"no message of version {_VERSION}")
    if _HEAD.size + n + m > len(data):
        raise UsageError("a binary message is shorter than its head says")
    at = _HEAD.size
    meta = _object(data[at : at + n]) if n else {}
    head = BinaryHead(kind, cam, seq, captured, rev, flags, sent)
    return head, meta, data[at + n : at + n + m], data[at + n + m :]


# -- what a page sends ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a page."""

    visible: bool = True
    """False where nobody sees the page: it is sent no images and masks."""


@dataclass(frozen=True, slots=True)
class Visible:
    """The page was shown or hidden."""

    visible: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for the server's clock."""

    t: float
    """Any finite number; it comes back."""

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            ValueError: the number is infinite: JSON has none.
        """
        if not math.isfinite(self.t):
            raise ValueError(f"t is a finite number, not {self.t}")


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Asks for a camera."""

    cam: int
    codec: Literal["jpeg", "h264"] = "jpeg"
    """h264 only where the page can decode it."""
    max_w: int = 1280
    """Widest image that is of use, pixels; the server has 1920, 1280, 960, 640 and 320."""
    fps: float = 0.0
    """Most images per second; 0: all."""
    mode: Literal["live", "sync"] = "live"
    """live: every image at once, masks when they are found; sync: images with their own masks."""
    masks: bool = True
    video: bool = True
    view: View = "instances"
    """semantic and panoptic only where `welcome.can.maps` is true."""

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            ValueError: the rate is none.
        """
        if not 0 <= self.fps < math.inf:
            raise ValueError(f"fps is a rate, 0 for all images, not {self.fps}")


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Wants no more of a camera."""

    cam: int


@dataclass(frozen=True, slots=True)
class Ack:
    """A binary message was drawn, or thrown away: there is room for another."""

    cam: int
    seq: int
    what: Literal["video", "masks"] = "video"
    """masks for kind 3, video for all others."""
    age_ms: float | None = None
    """Age of the image when it was drawn, by the page's estimate of the server's clock."""
    decode_ms: float | None = None


@dataclass(frozen=True, slots=True)
class PromptOp:
    """One step of an edit of the prompts."""

    op: Literal["add", "remove", "rename", "threshold", "enable", "color", "replace"]
    prompt: int | None = None
    """Id of the prompt; not for add and replace."""
    text: str | None = None
    """For add and rename."""
    threshold: float | None = None
    """For add and threshold: 0..1, or null for the run's own."""
    enabled: bool | None = None
    """For enable."""
    color: str | None = None
    """For add and color: #rrggbb, or null for the page's choice."""
    prompts: tuple[dict[str, Any], ...] | None = None
    """For replace: all prompts, as tables {text, threshold, enabled, color}."""


@dataclass(frozen=True, slots=True)
class PromptsSet:
    """Changes the prompts, if nobody else has since `base_rev`."""

    base_rev: int
    ops: tuple[PromptOp, ...]
    id: int | None = None
    """Comes back with the answer."""


@dataclass(frozen=True, slots=True)
class Zone:
    """An area, or a line, of a camera's image."""

    name: str
    kind: Literal["area", "line", "look"]
    """look: an area where to look; it counts nothing, and what lies outside is left out."""
    points: tuple[tuple[float, float], ...]
    """x y, 0..1 of the image's width and height; a line has two, an area three or more."""
    prompts: tuple[str, ...] = ()
    """Texts of the prompts that count; none: all."""

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            ValueError: the points make no such shape, or the name is too long.
        """
        if not 1 <= len(self.name) <= 64:
            raise ValueError("the name of a zone has 1 to 64 characters")
        count = len(self.points)
        if (self.kind == "line" and count != 2) or not 2 <= count <= _MAX_POINTS:
            raise ValueError(f"a line has 2 points, an area 3 to {_MAX_POINTS}")
        if self.kind != "line" and count < 3:
            raise ValueError(f"an area has 3 to {_MAX_POINTS} points")
        if not all(0 <= value <= 1 for point in self.points for value in point):
            raise ValueError("the points of a zone are parts of the image, 0..1")


@dataclass(frozen=True, slots=True)
class ZonesSet:
    """Replaces the zones of a camera, if nobody else has since `base_rev`."""

    cam: int
    base_rev: int
    zones: tuple[Zone, ...]
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Writes the newest image and what was found in it into the server's folder."""

    cam: int
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """Starts or stops recording a camera into the server's folder."""

    cam: int
    on: bool
    overlay: bool = True
    """True: with masks, boxes and labels."""
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Camera:
    """This page will send images of its own camera as this camera, or no more."""

    cam: int
    on: bool = True
    id: int | None = None


_WHATS: Final = ("video", "masks")  # no set: what a page sends may have no hash
_ACK_KEYS: Final = frozenset(field.name for field in fields(Ack))
_MESSAGES: Final[dict[str, type[Any]]] = {
    "hello": Hello,
    "vis": Visible,
    "ping": Ping,
    "sub": Subscribe,
    "unsub": Unsubscribe,
    "ack": Ack,
    "prompts.set": PromptsSet,
    "zones.set": ZonesSet,
    "snapshot": Snapshot,
    "record": Record,
    "camera": Camera,
}


def read_message(text: str) -> Any:
    """Read what a page sends: one of the dataclasses of this module.

    Raises:
        UsageError: it is no such message; the reason says why.
    """
    given = _object(text)
    kind = given.pop("type", None)
    # Most messages are; a page sends two for each image.
    if kind == "ack" and (ack := _usual_ack(given)) is not None:
        return ack
    if not isinstance(kind, str) or kind not in _MESSAGES:
        raise UsageError(f"message type {kind!r:.40} is none of {', '.join(_MESSAGES)}")
    return read_table(_MESSAGES[kind], given, f"a message {kind!r}", error=UsageError)


def _usual_ack(given: dict[str, Any]) -> Ack | None:
    """What `read_table` makes of an acknowledgement, a fifth of the work; None: it has to look."""
    cam, seq, what = given.get("cam"), given.get("seq"), given.get("what", "video")
    age_ms, decode_ms = given.get("age_ms"), given.get("decode_ms")
    if type(cam) is not int or type(seq) is not int or what not in _WHATS:
        return None
    if not (age_ms is None or type(age_ms) is float):
        return None
    if not (decode_ms is None or type(decode_ms) is float) or not given.keys() <= _ACK_KEYS:
        return None
    return Ack(cam, seq, what, age_ms, decode_ms)


def _object(text: str | bytes) -> dict[str, Any]:
    # RecursionError: many "[" are deeper than the parser goes.
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"a message is a JSON object: {error}") from error
    if not isinstance(given, dict):
        raise UsageError("a message is a JSON object")
    return given
