"""30,000 damaged messages: each is read or refused with WireError, in little memory."""

import resource
import struct

import msgpack
import numpy as np
import pytest
from wire_samples import a_frame, a_result

from ape_stream.errors import WireError
from ape_stream.wire import Envelope, decode_frame, decode_result, encode_frame, encode_result

ENVELOPE = Envelope("cam", "r1", 1, 2)
BLIND, INFORMED = 18_000, 12_000
STRANGE = [None, True, 0, 1, -1, 2**16, 2**31, 2**63, 2**64 - 1, 1e308, float("nan"), "", "a\0"]
STRANGE += [b"", b"\xff" * 16, [], [1], [[1, 2, 3]], {}, {"text": "x"}, "x" * 5000, [2**12, 2**12]]


def samples():
    size = (16, 24)
    return [
        encode_result(a_result(1, 2, size), ENVELOPE, labels="zstd"),
        encode_result(a_result(2, 3, size, tracked=False), ENVELOPE, labels="lz4"),
        encode_result(a_result(3, 1, size), ENVELOPE, image="jpeg"),
        encode_frame(a_frame(4, size), ENVELOPE, image="bgr8"),
    ]


def blindly(rng, message):
    """Flip, cut, repeat or overwrite some bytes."""
    data = bytearray(message)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(len(data), 1)))
        match int(rng.integers(0, 4)):
            case 0:
                data[at : at + 1] = bytes([rng.integers(0, 256)])
            case 1:
                del data[at : at + int(rng.integers(1, 40))]
            case 2:
                data[at:at] = data[at : at + int(rng.integers(1, 40))]
            case _:
                data[at : at + 4] = rng.choice([0, 1, 2**31, 2**32 - 1]).astype("<u4").tobytes()
    return bytes(data)


def informed(rng, message):
    """Keep the message well formed and damage values in its head."""
    (length,) = struct.unpack_from("<I", message, 8)
    head = msgpack.unpackb(message[12 : 12 + length])
    for _ in range(rng.integers(1, 3)):
        key = list(head)[rng.integers(len(head))]
        value = head[key]
        if isinstance(value, bytes) and rng.random() < 0.7:
            head[key] = blindly(rng, value)
        else:
            head[key] = STRANGE[rng.integers(len(STRANGE))]
    packed = msgpack.packb(head)
    return message[:8] + struct.pack("<I", len(packed)) + packed + message[12 + length :]


@pytest.mark.slow
def test_damaged_messages_are_read_or_refused():
    rng = np.random.default_rng(7)
    bases = samples()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for turn in range(BLIND + INFORMED):
        base = bases[turn % len(bases)]
        message = (blindly if turn < BLIND else informed)(rng, base)
        decode = decode_frame if message[5:6] == b"\x02" else decode_result
        try:
            decode(message)
        except WireError:
            refused += 1
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert 15_000 < refused < 30_000  # most are caught, and the test does reach the good path
    assert grown_mib < 64
