"""Frames and results as versioned bytes."""

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
