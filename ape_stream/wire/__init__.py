"""Frames and results as versioned bytes (docs/wire.md).

messages  encode and decode results, frames and ends of streams
header    the fixed bytes and the msgpack map that every message begins with
codecs    masks, label maps and images as bytes
"""

from ape_stream.wire.messages import (
    Envelope,
    WireFrame,
    WireLimits,
    WireResult,
    decode_frame,
    decode_result,
    encode_end,
    encode_frame,
    encode_result,
    peek,
)

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
