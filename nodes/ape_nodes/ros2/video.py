"""Compressed video in messages: packets of ffmpeg_image_transport or foxglove_msgs/CompressedVideo.

Every packet is decoded, as later ones need it; the images come out with the stamps of their own
packets, a few packets later where the encoder reorders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import av
from av.error import FFmpegError

from ape_stream.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DecodedImage", "VideoDecoder", "is_packet"]

_CODECS: Final = {
    "h264": "h264", "avc": "h264", "libx264": "h264", "h264_nvenc": "h264", "h264_vaapi": "h264",
    "h264_nvmpi": "h264", "h265": "hevc", "hevc": "hevc", "libx265": "hevc", "hevc_nvenc": "hevc",
    "hevc_vaapi": "hevc", "vp9": "vp9", "libvpx-vp9": "vp9", "av1": "av1", "libsvtav1": "av1",
    "mjpeg": "mjpeg",
}  # fmt: skip
"""Names of codecs and of their encoders -> the decoder. Others are passed on as they are."""
_WAITING: Final = 64
"""Stamps of packets whose image has not come out yet."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """An image of a video, with the header of its packet."""

    header: Any
    """std_msgs/Header, or the stamp and frame of a CompressedVideo in the same form."""
    pixels: NDArray[np.uint8]
    """(H, W, 3) uint8 blue-green-red."""


@dataclass(frozen=True, slots=True)
class _Header:
    stamp: Any
    frame_id: str


def is_packet(message: Any) -> bool:
    """Whether a message is a packet of a video."""
    return hasattr(message, "pts") or (hasattr(message, "format") and hasattr(message, "timestamp"))


class VideoDecoder:
    """Decodes the packets of one topic in their order.

    A stream is entered at its next key frame.
    """

    def __init__(self) -> None:
        self._codec: Any = None
        self._name = ""
        self._headers: dict[int, Any] = {}
        self._count = 0

    def decode(self, message: Any) -> Iterator[DecodedImage]:
        """The images that are complete with this packet, usually one.

        Raises:
            SourceError: the codec is not known here, or the packet is damaged or comes before the
                first key frame.
        """
        packets = hasattr(message, "pts")
        name = message.encoding if packets else message.format
        header = message.header if packets else _Header(message.timestamp, message.frame_id)
        # "libx264;yuv420p" and the like: the encoder, then pixel formats.
        self._open(name.split(";")[0].strip().lower())
        packet = av.Packet(bytes(memoryview(message.data)))
        # Its number as time: so each image is given the header of its own packet.
        packet.pts = packet.dts = self._count
        self._headers[self._count] = header
        self._headers.pop(self._count - _WAITING, None)
        self._count += 1
        try:
            images = self._codec.decode(packet)
        except FFmpegError as error:
            raise SourceError(
                f"a packet of {name} video cannot be decoded (is it before the first key frame?):"
                f" {error.strerror}"
            ) from error
        for image in images:
            own = self._headers.pop(image.pts, header)
            yield DecodedImage(own, image.to_ndarray(format="bgr24"))

    def _open(self, name: str) -> None:
        if self._codec is not None and name == self._name:
            return
        try:
            self._codec = av.CodecContext.create(_CODECS.get(name, name), "r")
        except (FFmpegError, ValueError) as error:
            known = ", ".join(sorted(set(_CODECS.values())))
            raise SourceError(f"video encoding {name!r} is none of {known}") from error
        # Threads by frame would hold images back; each is wanted at once.
        self._codec.thread_type = "SLICE"
        self._name = name
        self._headers.clear()
