"""Frames as lines of the shards, and back: the same values on every way.

Scores are rounded to 5 digits and boxes to 2 before anything is decided by them, so that the last
bits of a device's arithmetic do not reach the tracker.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream import masks
from ape_stream.sinks.jsonl import instance_records
from ape_stream.types import Instances

if TYPE_CHECKING:
    from ape_stream.types import FrameResult

__all__ = ["frame_line", "frame_values", "instances_of"]


def frame_values(result: FrameResult, file: str | None = None) -> dict[str, Any]:
    """A frame as the values of a `FrameRecord`.

    Args:
        result: The frame.
        file: The image that it was saved as; None takes the one that it was read from.
    """
    frame = result.frame
    values: dict[str, Any] = {
        "stream": frame.stream,
        "frame": frame.index,
        "time_s": round(frame.time_s, 6),
        "size": list(frame.size),
        "instances": instance_records(result),
    }
    if (name := file or frame.origin) is not None:
        values["file"] = name
    if frame.pts is not None:
        values["pts"] = frame.pts
    return values


def frame_line(values: dict[str, Any]) -> bytes:
    """Values as a line of a records file."""
    text = json.dumps(values, ensure_ascii=False)
    return f"{text}\n".encode(errors="backslashreplace")


def instances_of(values: dict[str, Any]) -> Instances:
    """What was found in a frame, from its values; without track ids."""
    found = values["instances"]
    boxes_only = any(item["mask"] is None for item in found)
    return Instances(
        boxes=np.array([item["box"] for item in found], np.float32).reshape(-1, 4),
        scores=np.array([item["score"] for item in found], np.float32),
        prompt_ids=np.array([item["prompt_id"] for item in found], np.int64),
        masks=None if boxes_only else tuple(masks.decode_rle(item["mask"]) for item in found),
        size=(values["size"][0], values["size"][1]),
    )
