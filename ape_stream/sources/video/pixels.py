"""Decoded frames as images: upright, with square pixels, in the colours that they declare."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import av
import av.filter
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

__all__ = ["Images", "PixelAspect"]

_Matrix = tuple[int, ...]

_side_data_of: Any = SideDataContainer  # whose annotations leave its argument out
"""In place of `frame.side_data`, which the frame keeps and which keeps the frame: such a circle,
with all its pixels, stays in memory until Python next looks for circles."""
_WIDEST: Final = 8
"""A pixel more than this many times as wide as high, or the reverse, is a damaged header."""


class PixelAspect:
    """How wide the pixels of a stream are; asked by the thread that decodes it.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._coded = stream.codec_context.sample_aspect_ratio  # at the start
        self._declared = stream.sample_aspect_ratio

    def now(self) -> Fraction:
        """Width over height of a pixel of the frame that was decoded last.

        The container's word counts more than the codec's, until the codec says something new
        (a broadcast that goes over to 16:9).
        """
        coded = self._stream.codec_context.sample_aspect_ratio
        # A codec with the same value as at the start has no news: the container counts.
        aspect = self._declared if coded == self._coded else coded
        if not aspect or not Fraction(1, _WIDEST) <= aspect <= _WIDEST:
            return Fraction(1)
        return aspect


class Images:
    """Turns the frames of one stream into images.

    Args:
        square: Whether images get square pixels. The shorter side of a pixel is stretched, so no
            row or column is lost: 720x576 with pixels of 16:15 becomes 768x576.
    """

    def __init__(self, *, square: bool) -> None:
        self._square = square
        self._graph: Graph | None = None
        self._made_for: tuple[object, ...] = ()

    def image(self, frame: VideoFrame, aspect: Fraction) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, blue-green-red.

        Args:
            frame: As it was decoded.
            aspect: Width over height of its pixels.

        Raises:
            av.FFmpegError: FFmpeg cannot convert the frame.
        """
        filters = _autorotate(_display_matrix(frame))
        if filters:
            frame = self._filtered(frame, filters)
        if any(name == "transpose" for name, _ in filters):
            # A quarter turn swaps a pixel's width and height.
            aspect = 1 / aspect
        width, height = frame.width, frame.height
        if self._square:
            width, height = _square_size(width, height, aspect)
        if (width, height) == (frame.width, frame.height):
            return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)  # (H, W, 3)
        scaled = frame.reformat(width, height, "bgr24", interpolation="BICUBIC")
        return np.asarray(scaled.to_ndarray(), np.uint8)

    def _filtered(self, frame: VideoFrame, filters: list[tuple[str, str]]) -> VideoFrame:
        """Turned in its own pixel format, as ffmpeg does: chroma of odd sizes comes out alike."""
        made_for = (frame.width, frame.height, frame.format.name, tuple(filters))
        # A graph is configured for one format: a stream that changes its size needs a new one.
        if self._graph is None or made_for != self._made_for:
            self._graph, self._made_for = _graph(frame, filters), made_for
        self._graph.vpush(frame)
        return self._graph.vpull()


def _square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Width and height with square pixels; only ever larger."""
    if aspect >= 1:
        return max(1, round(width * aspect)), height
    return width, max(1, round(height / aspect))


def _display_matrix(frame: VideoFrame) -> _Matrix | None:
    """The nine numbers of the frame's display matrix (libavutil/display.h), or None."""
    side_data = _side_data_of(frame)
    if Type.DISPLAYMATRIX not in side_data:
        return None
    return tuple(np.frombuffer(side_data[Type.DISPLAYMATRIX], np.int32, 9).tolist())


def _autorotate(matrix: _Matrix | None) -> list[tuple[str, str]]:
    """The filters, by name and arguments, that ffmpeg inserts for a display matrix.

    The matrix holds a b u, c d v, x y w row by row; a point (x, y) of the stored image is shown
    at (ax + cy, bx + dy). Signs distinguish mirrored ones from rotations, as in ffmpeg's
    fftools/ffmpeg_filter.c.
    """
    if matrix is None:
        return []
    # Fixed-point numbers; only their signs matter, and which of a and b is larger.
    a, b, _, c, d = matrix[:5]
    if abs(b) > abs(a):  # a quarter turn
        if b > 0:
            return [("transpose", "cclock_flip" if c > 0 else "clock")]
        return [("transpose", "clock_flip" if c < 0 else "cclock")]
    return [(name, "") for name, sign in (("hflip", a), ("vflip", d)) if sign < 0]


def _graph(frame: VideoFrame, filters: list[tuple[str, str]]) -> Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 1000),
    )
    steps = [graph.add(name, arguments or None) for name, arguments in filters]
    graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
    return graph
