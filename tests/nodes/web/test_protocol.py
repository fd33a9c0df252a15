import asyncio
import json
import struct
import zlib
from unittest.mock import MagicMock

import numpy as np
import pytest
from aiohttp import WSMsgType
from aiohttp.http_websocket import WebSocketWriter

from ape_nodes.web import protocol
from ape_nodes.web.encoding.labels import label_map, pack_label_map
from ape_nodes.web.protocol import Ack
from ape_stream import masks
from ape_stream.errors import UsageError
from ape_stream.tables import read_table


def read_labels(data):
    """The label map as docs/reference/live-protocol.md describes it, byte by byte."""
    raw = zlib.decompress(data)
    width, height, runs = struct.unpack_from("<HHI", raw)
    labels, at, flat = raw[8 : 8 + runs], 8 + runs, bytearray()
    for label in labels:
        length = shift = 0
        while True:
            byte = raw[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        flat += bytes([label]) * length
    assert at == len(raw)
    return np.frombuffer(bytes(flat), np.uint8).reshape(height, width)


def some_masks(count, size, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        dense = np.zeros(size, bool)
        y, x = rng.integers(0, size[0] - 1), rng.integers(0, size[1] - 1)
        h, w = rng.integers(1, size[0] - y + 1), rng.integers(1, size[1] - x + 1)
        dense[y : y + h, x : x + w] = rng.random((h, w)) < 0.7
        found.append(masks.crop(dense))
    return found


@pytest.mark.parametrize("size", [(40, 60), (41, 61), (1, 1), (2, 300)])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_label_map_is_every_second_pixel_of_the_whole_one(size, count):
    found = some_masks(count, size) if min(size) > 1 else []
    whole = masks.label_map(found, size)
    assert np.array_equal(label_map(found, size), whole[::2, ::2])
    assert np.array_equal(label_map(found, size, step=1), whole)


@pytest.mark.parametrize("seed", range(5))
def test_packed_labels_come_back(seed):
    labels = label_map(some_masks(9, (90, 170), seed), (90, 170))
    assert np.array_equal(read_labels(pack_label_map(labels)), labels)
    stored = pack_label_map(labels, small=False)
    assert np.array_equal(read_labels(stored), labels)
    assert len(stored) > len(pack_label_map(labels))


def test_packed_labels_hold_long_runs():
    labels = np.zeros((1000, 1500), np.uint8)
    labels[999, 1499] = 255
    assert np.array_equal(read_labels(pack_label_map(labels)), labels)


def test_regions_after_the_255th_have_no_label():
    many = some_masks(300, (50, 50), 3)
    assert np.array_equal(label_map(many, (50, 50)), label_map(many[:255], (50, 50)))


@pytest.mark.parametrize("size", [42, 125, 126, 65_535, 65_536, 70_000])
def test_a_frame_is_what_aiohttp_makes_of_the_message(size):
    head = protocol.BinaryHead(1, 0, 7, 8)
    image = bytes(size - len(protocol.pack(head, {})))
    frame, start = protocol.pack_frame(head, {}, b"", image)
    transport = MagicMock()
    transport.is_closing.return_value = False
    writer = WebSocketWriter(MagicMock(_paused=False), transport)
    asyncio.run(writer.send_frame(protocol.pack(head, {}, b"", image), WSMsgType.BINARY))
    assert frame == b"".join(call.args[0] for call in transport.write.call_args_list)
    assert frame[start:] == protocol.pack(head, {}, b"", image)


def test_binary_messages_come_back():
    head = protocol.BinaryHead(3, 2, 7, 123_456_789, prompt_rev=4, flags=1, sent_us=5)
    packed = protocol.pack(head, {"a": [1]}, b"mask", b"image")
    assert protocol.unpack(packed) == (head, {"a": [1]}, b"mask", b"image")
    assert packed[:4] == b"AP\x01\x03"
    assert struct.unpack_from("<HHII", packed, 4) == (2, 1, 7, 4)


def test_a_sequence_number_wraps():
    head = protocol.BinaryHead(1, 0, 2**32 + 5, 0)
    assert protocol.unpack(protocol.pack(head, {}))[0].seq == 5


@pytest.mark.parametrize(
    "data",
    [b"", b"AP\x01", b"XX" + bytes(38), b"AP\x02" + bytes(37), b"AP\x01" + bytes(33) + b"\xff" * 4],
)
def test_what_is_no_binary_message_is_refused(data):
    with pytest.raises(UsageError):
        protocol.unpack(data)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "JSON object"),
        ("[" * 50_000, "JSON object"),
        ("[]", "JSON object"),
        ('{"type": "eval"}', "none of hello"),
        ('{"type": ["hello"]}', "none of hello"),
        ('{"type": "ack", "cam": 0}', "needs 'seq'"),
        ('{"type": "ack", "cam": "0", "seq": 1}', "whole number"),
        ('{"type": "sub", "cam": 0, "path": "/etc"}', "unknown key 'path'"),
        ('{"type": "sub", "cam": 0, "codec": "av1"}', "jpeg"),
        ('{"type": "sub", "cam": 0, "fps": NaN}', "rate"),
        ('{"type": "sub", "cam": 0, "fps": -1}', "rate"),
        ('{"type": "ping", "t": 1e999}', "finite"),
        ('{"type": "prompts.set", "base_rev": 1, "ops": [{"op": "exec"}]}', "add"),
    ],
)
def test_what_a_page_may_not_say_is_refused_with_the_reason(text, reason):
    with pytest.raises(UsageError, match=reason):
        protocol.read_message(text)


ODD = [None, True, 0, -3, 2**40, 1.5, float("nan"), "video", "masks", [], {}]


def ways_to_acknowledge():
    """Usual ones, and each with one key that is odd, missing or too much."""
    usual = {"cam": 0, "seq": 7, "what": "masks", "age_ms": 20.5, "decode_ms": None}
    yield usual
    yield {**usual, "path": "/etc"}
    for key in usual:
        yield {name: value for name, value in usual.items() if name != key}
        yield from ({**usual, key: value} for value in ODD)


def outcome(read, *given, **more):
    """What it returns, or says."""
    try:
        return repr(read(*given, **more))  # NaN is not equal to itself
    except UsageError as error:
        return str(error)


def test_acknowledgements_are_read_as_every_other_message_is():
    for given in ways_to_acknowledge():
        text = json.dumps({"type": "ack", **given})
        plain = outcome(read_table, Ack, given, "a message 'ack'", error=UsageError)
        assert outcome(protocol.read_message, text) == plain


@pytest.mark.parametrize(
    "zone",
    [
        {"name": "", "kind": "line", "points": [[0, 0], [1, 1]]},
        {"name": "a", "kind": "line", "points": [[0, 0]]},
        {"name": "a", "kind": "area", "points": [[0, 0], [1, 1]]},
        {"name": "a", "kind": "area", "points": [[0, 0], [1, 1], [2, 0]]},
        {"name": "a", "kind": "area", "points": [[0, 0], [1, 1], [float("nan"), 0]]},
        {"name": "a", "kind": "area", "points": [[0, 0]] * 65},
    ],
)
def test_a_zone_that_is_none_is_refused(zone):
    text = json.dumps({"type": "zones.set", "cam": 0, "base_rev": 1, "zones": [zone]})
    with pytest.raises(UsageError):
        protocol.read_message(text)
