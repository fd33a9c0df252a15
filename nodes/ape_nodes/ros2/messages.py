"""ROS 2 image messages to frames, from any backend."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ape_nodes.ros2.images import from_compressed, to_bgr
from ape_stream.types import Frame

__all__ = ["RosFrame", "frame_of"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RosFrame(Frame):
    """A frame that came in a ROS message; its results carry the same header, to the nanosecond."""

    stamp_ns: int = 0
    """header.stamp in nanoseconds."""
    frame_id: str = ""
    """header.frame_id."""


def frame_of(message: Any, index: int, stream: str) -> RosFrame:
    """The frame of an Image or CompressedImage, its header kept.

    Args:
        message: A sensor_msgs/Image or CompressedImage of any backend.
        index: Position in the stream, from 0.
        stream: Name of the stream.

    Raises:
        SourceError: the pixels cannot be read.
    """
    # A CompressedImage has `format` instead.
    is_compressed = not hasattr(message, "encoding")
    stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    return RosFrame(
        image=from_compressed(message.data) if is_compressed else to_bgr(message),
        index=index,
        time_s=stamp_ns / 1e9,
        stream=stream,
        captured_ns=time.monotonic_ns(),
        stamp_ns=stamp_ns,
        frame_id=message.header.frame_id,
    )
