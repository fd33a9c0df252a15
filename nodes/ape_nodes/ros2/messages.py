"""ROS 2 image messages to frames, from any backend."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ape_nodes.ros2.images import from_compressed, to_bgr
from ape_stream.types import Frame

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["RosFrame", "frame_of"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RosFrame(Frame):
    """A frame that came in a ROS message; its results carry the same header, to the nanosecond."""

    stamp_ns: int = 0
    """header.stamp in nanoseconds."""
    frame_id: str = ""
    """header.frame_id."""


def frame_of(message: Any, index: int, stream: str, placed: Frame | None = None) -> RosFrame:
    """The frame of an image, its header kept.

    Args:
        message: A sensor_msgs/Image or CompressedImage of any backend, or a `DecodedImage`.
        index: Position in the stream, from 0.
        stream: Name of the stream.
        placed: A frame with its time on the stream's clock, segment and capture time; None: the
            stamp, 0 and now.

    Raises:
        SourceError: the pixels cannot be read.
    """
    stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    return RosFrame(
        image=_pixels(message),
        index=index,
        time_s=stamp_ns / 1e9 if placed is None else placed.time_s,
        stream=stream,
        captured_ns=time.monotonic_ns() if placed is None else placed.captured_ns,
        segment=0 if placed is None else placed.segment,
        stamp_ns=stamp_ns,
        frame_id=message.header.frame_id,
    )


def _pixels(message: Any) -> NDArray[np.uint8]:
    if hasattr(message, "pixels"):  # of a video, decoded already
        pixels: NDArray[np.uint8] = message.pixels
        return pixels
    # A CompressedImage has `format` instead.
    return to_bgr(message) if hasattr(message, "encoding") else from_compressed(message.data)
