"""FrameResult and Frame <-> versioned bytes (wire format v1, docs/wire.md byte by byte).

A message is one buffer: 12 fixed bytes, a msgpack map (the head), then binary parts. It holds no
pickle and nothing that runs. Readers refuse another version, skip keys and parts they do not know,
and check every size before they allocate for it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.errors import PromptError, WireError
from ape_stream.types import (
    Frame,
    FrameResult,
    Instances,
    Maps,
    Mask,
    Prompt,
    PromptSet,
    SemanticMap,
)
from ape_stream.wire import codecs
from ape_stream.wire.header import (
    KIND_END,
    KIND_FRAME,
    KIND_RESULT,
    Head,
    WireLimits,
    assemble,
    finite,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Envelope",
    "WireFrame",
    "WireLimits",
    "WireResult",
    "decode_frame",
    "decode_result",
    "encode_end",
    "encode_frame",
    "encode_result",
    "peek",
]

# Little-endian on the wire, on every machine.
_U32: Final = np.dtype("<u4")
_F32: Final = np.dtype("<f4")
_I64: Final = np.dtype("<i8")
_MASK_COLUMNS: Final = ("mask_boxes", "mask_forms", "mask_bytes")
_PROMPT_KEYS: Final = tuple(field.name for field in fields(Prompt))
MAX_NAME_CHARS: Final = 1_000
"""Of the names of a stream and of a run."""
DEFAULT_LIMITS: Final = WireLimits()


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sent a message, and as which one."""

    stream: str
    """Name of the stream; also the topic."""
    run: str
    """Random, new at every start of the sender: another run is a restart, not a gap."""
    sequence: int
    """Counted by the sender per stream and run from 0; a hole is a lost message."""
    sent_ns: int = 0
    """`time.time_ns()` at the sender."""


@dataclass(frozen=True, slots=True, eq=False)
class WireResult(FrameResult):
    """A result that came over the wire: usable wherever a FrameResult is."""

    # Defaults only because a field of `FrameResult` has one; `decode_result` gives them all.
    envelope: Envelope = Envelope("", "", 0)
    """Who sent it."""
    has_image: bool = False
    """False when the message held no image: `frame.image` is then black, of the right size."""
    label_map: NDArray[np.uint16] | None = None
    """(H, W) uint16, 0 = nothing, k = prompt k-1; None where the sender was not asked for it. Where
    the sender had a semantic map, `semantic()` returns the same."""


@dataclass(frozen=True, slots=True, eq=False)
class WireFrame:
    """A frame that came over the wire."""

    frame: Frame
    """The frame, under the sender's index, time and stream name."""
    envelope: Envelope
    """Who sent it."""


def encode_result(
    result: FrameResult,
    envelope: Envelope,
    *,
    image: str | None = None,
    labels: str | None = None,
    quality: int = 80,
) -> bytes:
    """Write a result as one message.

    Args:
        result: What to write. Its frame's image is left out unless `image` says otherwise.
        envelope: Stream, run and sequence to write on it.
        image: None, "jpeg" or "bgr8": send the frame's image along in that form.
        labels: None, "zstd" or "lz4": send a label map of the prompts along: the semantic map where
            the result has one, else masks painted here.
        quality: JPEG quality, 1..100.

    Raises:
        WireError: the result holds what no reader would accept.
        PluginError: the libraries of the extra `zmq` are not installed.
    """
    columns, masks = _mask_columns(result.instances)
    parts = [("masks", "", masks)]
    if labels is not None:
        parts.append(("labels", labels, codecs.compress_labels(result.label_image(), labels)))
    if image is not None:
        parts.append(("image", image, codecs.encode_image(result.frame.image, image, quality)))
    head = {
        **_frame_head(result.frame, envelope),
        "prompts": [asdict(prompt) for prompt in result.prompts],
        **_instance_head(result.instances),
        **columns,
        **({} if labels is None or result.maps.semantic is None else {"labels_from": "semantic"}),
        "timings": {str(name): float(ms) for name, ms in result.timings.items()},
    }
    return assemble(KIND_RESULT, head, parts)


def encode_frame(
    frame: Frame, envelope: Envelope, *, image: str = "jpeg", quality: int = 80
) -> bytes:
    """Write a frame as one message.

    Args:
        frame: What to write.
        envelope: Stream, run and sequence to write on it.
        image: "jpeg" or "bgr8" (bare pixels).
        quality: JPEG quality, 1..100.

    Raises:
        WireError: the image cannot be written in that form.
        PluginError: the libraries of the extra `zmq` are not installed.
    """
    data = codecs.encode_image(frame.image, image, quality)
    return assemble(KIND_FRAME, _frame_head(frame, envelope), [("image", image, data)])


def encode_end(envelope: Envelope) -> bytes:
    """Write the message that says: this stream has ended, in order."""
    return assemble(KIND_END, _envelope_head(envelope), [])


def _envelope_head(envelope: Envelope) -> dict[str, Any]:
    if max(len(envelope.stream), len(envelope.run)) > MAX_NAME_CHARS:
        raise WireError(f"the name of a stream or a run is over {MAX_NAME_CHARS} characters")
    if "\0" in envelope.stream:
        raise WireError("a stream's name holds a zero byte: that ends the topic on the wire")
    return {
        "stream": envelope.stream,
        "run": envelope.run,
        "seq": envelope.sequence,
        "sent": envelope.sent_ns,
    }


def _frame_head(frame: Frame, envelope: Envelope) -> dict[str, Any]:
    return {
        **_envelope_head(envelope),
        "index": int(frame.index),
        "time": float(frame.time_s),
        "captured": int(frame.captured_ns),
        "size": list(frame.size),
    }


def _instance_head(found: Instances) -> dict[str, Any]:
    if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        raise WireError("a box or a score is not a finite number")
    tracks = None if found.track_ids is None else found.track_ids.astype(_I64).tobytes()
    return {
        "n": len(found),
        "boxes": found.boxes.astype(_F32).tobytes(),
        "scores": found.scores.astype(_F32).tobytes(),
        "prompt_ids": found.prompt_ids.astype(_U32).tobytes(),
        "track_ids": tracks,
    }


def _mask_columns(found: Instances) -> tuple[dict[str, bytes | None], bytes]:
    """The three mask columns of the head, and the part they point into."""
    if found.masks is None:
        return dict.fromkeys(_MASK_COLUMNS), b""
    boxes = np.zeros((len(found), 4), _U32)
    forms = np.zeros(len(found), np.uint8)
    encoded = []
    for k, mask in enumerate(found.masks):
        height, width = mask.bitmap.shape
        boxes[k] = mask.x, mask.y, width, height
        forms[k], data = codecs.encode_mask(mask.bitmap)
        encoded.append(data)
    lengths = np.array([len(data) for data in encoded], _U32)
    columns = (boxes.tobytes(), forms.tobytes(), lengths.tobytes())
    return dict(zip(_MASK_COLUMNS, columns, strict=True)), b"".join(encoded)


def _open(data: bytes | memoryview, kind: int, limits: WireLimits) -> Head:
    head = Head(data, limits)
    if head.kind != kind:
        raise WireError(f"a message of kind {head.kind} came where kind {kind} was expected")
    return head


def _envelope(head: Head) -> Envelope:
    stream, run = head.text("stream"), head.text("run")
    if max(len(stream), len(run)) > MAX_NAME_CHARS:
        raise WireError(f"the name of a stream or a run is over {MAX_NAME_CHARS} characters")
    return Envelope(
        stream=stream,
        run=run,
        sequence=head.whole("seq"),
        sent_ns=head.whole("sent"),
    )


def peek(data: bytes | memoryview) -> tuple[int, Envelope]:
    """Kind (1 result, 2 frame, 3 end) and envelope of a message, without decoding the rest.

    Raises:
        WireError: the bytes are not a message of this version.
    """
    head = Head(data, DEFAULT_LIMITS)
    return head.kind, _envelope(head)


def decode_result(data: bytes | memoryview, limits: WireLimits = DEFAULT_LIMITS) -> WireResult:
    """Read a result.

    Raises:
        WireError: the bytes are not a result of this version, or ask for more than the limits.
        PluginError: the libraries of the extra `zmq` are not installed.
    """
    head = _open(data, KIND_RESULT, limits)
    size = _size(head, limits)
    prompts = _prompts(head)
    instances = _instances(head, size, len(prompts), limits)
    frame = _frame(head, size)
    label_map = _label_map(head, size)
    semantic = label_map is not None and head.values.get("labels_from") == "semantic"
    return WireResult(
        frame=frame,
        instances=instances,
        prompts=prompts,
        timings=_timings(head),
        maps=Maps(SemanticMap(label_map)) if semantic and label_map is not None else Maps(),
        label_map=label_map,
        envelope=_envelope(head),
        has_image="image" in head.parts,
    )


def decode_frame(data: bytes | memoryview, limits: WireLimits = DEFAULT_LIMITS) -> WireFrame:
    """Read a frame.

    Raises:
        WireError: the bytes are not a frame of this version, or ask for more than the limits.
        PluginError: the libraries of the extra `zmq` are not installed.
    """
    head = _open(data, KIND_FRAME, limits)
    if "image" not in head.parts:
        raise WireError("a frame message holds no image")
    return WireFrame(_frame(head, _size(head, limits)), _envelope(head))


def _size(head: Head, limits: WireLimits) -> tuple[int, int]:
    pair = head.listed("size")  # [height, width]
    # `type() is`, not isinstance: True is an int to Python.
    if len(pair) != 2 or any(type(side) is not int or side < 1 for side in pair):
        raise WireError("'size' is not [height, width] in pixels")
    if pair[0] * pair[1] > limits.frame_pixels:
        raise WireError(f"an image of {pair[1]}x{pair[0]} is over {limits.frame_pixels} pixels")
    return pair[0], pair[1]


def _frame(head: Head, size: tuple[int, int]) -> Frame:
    part = head.parts.get("image")
    if part is None:
        image = np.broadcast_to(np.zeros(1, np.uint8), (*size, 3))  # black, one byte of memory
    else:
        image = codecs.decode_image(part[1], part[0], *size)
    return Frame(
        image=image,
        index=head.whole("index"),
        time_s=head.number("time"),
        stream=head.text("stream"),
        captured_ns=head.whole("captured"),
    )


def _label_map(head: Head, size: tuple[int, int]) -> NDArray[np.uint16] | None:
    part = head.parts.get("labels")
    return None if part is None else codecs.expand_labels(part[1], part[0], *size)


def _timings(head: Head) -> dict[str, float]:
    timings = head.mapping("timings")
    if not all(isinstance(name, str) for name in timings):  # msgpack also allows bytes
        raise WireError("the name of a timing is not text")
    return {name: finite(name, ms) for name, ms in timings.items()}


def _prompts(head: Head) -> PromptSet:
    try:
        return PromptSet(tuple(_prompt(entry) for entry in head.listed("prompts")))
    except PromptError as error:
        raise WireError(f"the prompts cannot be used: {error}") from error


def _prompt(entry: Any) -> Prompt:
    if not isinstance(entry, dict):
        raise WireError(f"a prompt is not a map, but {entry!r:.80}")
    # A later version may send more keys: readers skip what they do not know.
    return Prompt.from_dict({key: entry[key] for key in _PROMPT_KEYS if key in entry})


def _instances(head: Head, size: tuple[int, int], prompts: int, limits: WireLimits) -> Instances:
    # All columns must have `n` rows: the limit holds for every one of them.
    n = head.whole("n", 0, limits.instances)
    boxes = head.column("boxes", _F32, (n, 4)).astype(np.float32, copy=False)
    scores = head.column("scores", _F32, (n,)).astype(np.float32, copy=False)
    # NaN makes every comparison false, so no later check would find it.
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise WireError("a box or a score is not a finite number")
    prompt_ids = head.column("prompt_ids", _U32, (n,)).astype(np.int64)
    if n and int(prompt_ids.max()) >= prompts:
        raise WireError(f"prompt id {int(prompt_ids.max())} of only {prompts} prompts")
    tracks = None
    if head.values.get("track_ids") is not None:
        tracks = head.column("track_ids", _I64, (n,)).astype(np.int64, copy=False)
    boxes_only = all(head.values.get(name, "") is None for name in _MASK_COLUMNS)
    masks = None if boxes_only else _masks(head, n, size, limits)
    return Instances(boxes, scores, prompt_ids, masks, size, tracks)


def _masks(head: Head, n: int, size: tuple[int, int], limits: WireLimits) -> tuple[Mask, ...]:
    # int64 from here on: sums of 32-bit numbers could wrap around and pass the checks.
    boxes = head.column("mask_boxes", _U32, (n, 4)).astype(np.int64)  # x y width height
    forms = head.column("mask_forms", np.dtype(np.uint8), (n,))
    lengths = head.column("mask_bytes", _U32, (n,)).astype(np.int64)
    data = head.parts.get("masks", ("", memoryview(b"")))[1]
    if int(lengths.sum()) != len(data):
        raise WireError("the masks' lengths do not fill the masks part")
    right, bottom = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    if (right > size[1]).any() or (bottom > size[0]).any():
        raise WireError("a mask reaches over its image's edge")
    if int((boxes[:, 2] * boxes[:, 3]).sum()) > limits.mask_pixels:
        raise WireError(f"the masks have more than {limits.mask_pixels} pixels")
    # All sizes are checked above, before any mask is decoded: nothing is allocated on a sender's
    # word alone.
    ends = np.cumsum(lengths)  # (n,) where each mask's bytes end
    masks = []
    for (x, y, w, h), form, start, end in zip(
        boxes.tolist(), forms.tolist(), (ends - lengths).tolist(), ends.tolist(), strict=True
    ):
        bitmap = codecs.decode_mask(form, data[start:end], h, w)
        masks.append(Mask(bitmap, x, y))
    return tuple(masks)
