"""What is kept of one image, as bytes: a line of JSON that names arrays, and the arrays.

    {"arrays": {"scores": ["<f4", [300]], ...}, "size": [480, 640]}

Regions are arrays with masks as COCO's run lengths, maps are PNGs of 16 bits.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ape_stream.errors import WireError
from ape_stream.evaluation.benchmarks.scoring.panoptic import Segment
from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, MaskCodes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["FoundLabels", "FoundSegments", "Prediction", "pack", "unpack"]

_DTYPES = frozenset(("<f4", "<i4", "<i8", "|u1", "<u2"))


@dataclass(frozen=True, slots=True, eq=False)
class FoundLabels:
    """The class of every pixel."""

    ids: NDArray[np.uint16]
    """(H, W): 0 is nothing, k the class at position k - 1."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundSegments:
    """The segment of every pixel."""

    ids: NDArray[np.uint16]
    """(H, W) ids of segments; 0 is void."""
    segments: tuple[Segment, ...]
    """The segments, by their class ids."""


Prediction = FoundRegions | FoundLabels | FoundSegments
"""What is kept of one image."""


def pack(found: Prediction) -> bytes:
    """The bytes of a prediction: the same ones for the same prediction."""
    if isinstance(found, FoundRegions):
        arrays: dict[str, NDArray[Any]] = {
            "xywh": found.xywh,
            "scores": found.scores,
            "class_ids": found.class_ids,
        }
        if found.masks is not None:
            masks = found.masks
            arrays |= {"text": masks.text, "ends": masks.ends, "sizes": masks.sizes}
        return _joined(arrays)
    if isinstance(found, FoundLabels):
        return _joined({"labels": _png(found.ids)})
    table = [(one.id, one.class_id) for one in found.segments]
    rows = np.array(table, np.int32).reshape(-1, 2)
    return _joined({"segments": _png(found.ids), "table": rows})


def _joined(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    plain = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        for name, array in arrays.items()
    }
    head = {name: [array.dtype.str, list(array.shape)] for name, array in plain.items()}
    line = json.dumps(head, sort_keys=True).encode()
    return b"\n".join([line, b"".join(plain[name].tobytes() for name in sorted(plain))])


def _png(ids: NDArray[np.uint16]) -> NDArray[np.uint8]:
    _, data = cv2.imencode(".png", ids)
    return data.reshape(-1).astype(np.uint8)


def unpack(data: bytes, image_id: int) -> Prediction:
    """Undo `pack`.

    Args:
        data: The bytes.
        image_id: Of the image that they belong to.

    Raises:
        WireError: they are no prediction.
    """
    try:
        arrays = _split(data)
        if "labels" in arrays:
            return FoundLabels(_pixels(arrays["labels"]))
        if "segments" in arrays:
            table = arrays["table"].tolist()
            segments = tuple(Segment(key, class_id) for key, class_id in table)
            return FoundSegments(_pixels(arrays["segments"]), segments)
        masks = (
            MaskCodes(*(arrays[k] for k in ("text", "ends", "sizes"))) if "text" in arrays else None
        )
        return FoundRegions(
            image_ids=np.full(len(arrays["scores"]), image_id, np.int64),
            class_ids=arrays["class_ids"],
            xywh=arrays["xywh"],
            scores=arrays["scores"],
            masks=masks,
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise WireError(f"these bytes are no prediction: {error}") from error


def _split(data: bytes) -> dict[str, NDArray[Any]]:
    line, _, body = data.partition(b"\n")
    arrays, at = {}, 0
    for name, (dtype, shape) in sorted(json.loads(line).items()):
        if dtype not in _DTYPES:
            raise ValueError(f"an array of {dtype}")
        count = math.prod(shape)
        arrays[name] = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += arrays[name].nbytes
    if at != len(body):
        raise ValueError(f"{len(body)} bytes for arrays of {at}")
    return arrays


def _pixels(png: NDArray[np.uint8]) -> NDArray[np.uint16]:
    ids = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
    if ids is None or ids.ndim != 2 or ids.dtype != np.uint16:
        raise ValueError("a map is no PNG of 16 bits")
    return ids.astype(np.uint16, copy=False)
