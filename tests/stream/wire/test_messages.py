import builtins
import struct
from dataclasses import replace

import cv2
import msgpack
import numpy as np
import pytest
from wire_samples import PROMPTS, a_frame, a_result, assert_same

from ape_stream import optional
from ape_stream.errors import PluginError, UsageError, WireError
from ape_stream.masks import label_map
from ape_stream.types import Frame, FrameResult, Instances, Maps, Mask, SemanticMap
from ape_stream.wire import (
    Envelope,
    WireLimits,
    codecs,
    decode_frame,
    decode_result,
    encode_end,
    encode_frame,
    encode_result,
    peek,
)

ENVELOPE = Envelope("cam", "r1", 41, 1_700_000_000_000_000_000)


def edited(message, **changes):
    """The message with head keys replaced, or taken away where the value is `...`."""
    (length,) = struct.unpack_from("<I", message, 8)
    head = msgpack.unpackb(message[12 : 12 + length])
    for key, value in changes.items():
        if value is ...:
            del head[key]
        else:
            head[key] = value
    packed = msgpack.packb(head)
    return message[:8] + struct.pack("<I", len(packed)) + packed + message[12 + length :]


def head_of(message):
    (length,) = struct.unpack_from("<I", message, 8)
    return msgpack.unpackb(message[12 : 12 + length])


@pytest.mark.parametrize("labels", ["zstd", "lz4"])
@pytest.mark.parametrize("n", [0, 1, 4, 60])
@pytest.mark.parametrize("tracked", [True, False])
def test_a_result_comes_back_to_the_bit(n, labels, tracked):
    sent = a_result(3, n, tracked=tracked)
    got = decode_result(encode_result(sent, ENVELOPE, image="bgr8", labels=labels))
    assert_same(sent, got)
    assert got.envelope == ENVELOPE
    assert got.has_image
    found = sent.instances
    values = (found.prompt_ids + 1).tolist()
    np.testing.assert_array_equal(got.label_map, label_map(found.masks, found.size, values))
    with pytest.raises(UsageError, match="instances only"):
        got.semantic()


def test_a_semantic_map_is_the_label_map_of_a_message():
    ids = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) % 4
    sent = replace(a_result(), maps=Maps(SemanticMap(ids)))
    got = decode_result(encode_result(sent, ENVELOPE, labels="zstd"))
    np.testing.assert_array_equal(got.semantic(), ids)
    np.testing.assert_array_equal(got.label_map, ids)
    with pytest.raises(UsageError, match="no scores"):
        got.semantic_scores()
    with pytest.raises(UsageError, match="no semantic map"):
        decode_result(encode_result(sent, ENVELOPE)).semantic()


def test_without_an_image_the_frame_is_black_and_says_so():
    got = decode_result(encode_result(a_result(), ENVELOPE))
    assert not got.has_image
    assert got.label_map is None
    assert got.frame.image.shape == (48, 64, 3)
    assert not got.frame.image.any()


def test_a_jpeg_is_the_one_opencv_writes():
    sent = a_result()
    got = decode_result(encode_result(sent, ENVELOPE, image="jpeg", quality=90))
    _, data = cv2.imencode(".jpg", sent.frame.image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    np.testing.assert_array_equal(got.frame.image, cv2.imdecode(data, cv2.IMREAD_COLOR))


def test_an_empty_mask_and_a_full_one_come_back():
    size = (5, 7)
    masks = (
        Mask(np.zeros((0, 0), np.bool_)),
        Mask(np.ones(size, np.bool_)),
        Mask(np.zeros((1, 1), np.bool_), 6, 4),
    )
    found = Instances(
        np.zeros((3, 4), np.float32), np.ones(3, np.float32), np.zeros(3, np.int64), masks, size
    )
    sent = FrameResult(Frame(np.zeros((*size, 3), np.uint8), 0, 0.0, "cam"), found, PROMPTS)
    assert_same(sent, decode_result(encode_result(sent, ENVELOPE)))


@pytest.mark.parametrize(
    "bitmap",
    [
        np.ones((1, 1), np.bool_),
        np.zeros((3, 5), np.bool_),
        np.arange(70_000).reshape(200, 350) < 40_000,
        (np.add.outer(np.arange(33), np.arange(35)) % 2).astype(np.bool_),
    ],
)
def test_the_shorter_mask_form_is_taken(bitmap):
    form, data = codecs.encode_mask(bitmap)
    np.testing.assert_array_equal(codecs.decode_mask(form, data, *bitmap.shape), bitmap)
    assert len(data) <= (bitmap.size + 7) // 8


def test_run_lengths_worked_by_hand():
    bitmap = np.zeros((2, 200), np.bool_)
    bitmap[0, 130:] = True  # 130 false, 70 true, 200 false
    assert codecs.encode_mask(bitmap) == (codecs.RUNS, bytes([0x82, 1, 70, 0xC8, 1]))


def test_a_frame_comes_back():
    sent = a_frame(9)
    got = decode_frame(encode_frame(sent, ENVELOPE, image="bgr8"))
    np.testing.assert_array_equal(got.frame.image, sent.image)
    assert (got.frame.index, got.frame.time_s, got.frame.stream) == (9, sent.time_s, "cam")
    assert got.envelope.sequence == 41


def test_peek_reads_kind_and_envelope_alone():
    assert peek(encode_result(a_result(), ENVELOPE)) == (1, ENVELOPE)
    assert peek(encode_frame(a_frame(), ENVELOPE)) == (2, ENVELOPE)
    assert peek(encode_end(ENVELOPE)) == (3, ENVELOPE)


def test_unknown_keys_and_parts_are_skipped():
    message = encode_result(a_result(), ENVELOPE)
    later = edited(
        message, novelty={"deep": [1, 2]}, parts=[*head_of(message)["parts"], ["x", "", 3]]
    )
    assert_same(decode_result(later + b"abc"), decode_result(message))


def test_whole_numbers_of_other_languages_are_taken_as_floats():
    got = decode_result(edited(encode_result(a_result(), ENVELOPE), time=3, timings={"a": 1}))
    assert (got.frame.time_s, got.timings["a"]) == (3.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": [0, 64]}, "size"),
        ({"size": [2**20, 2**20]}, "pixels"),
        ({"size": "48x64"}, "size"),
        ({"n": 5}, "shape"),
        ({"n": 2**40}, "not within"),
        ({"n": True}, "'n'"),
        ({"boxes": ...}, "boxes"),
        ({"scores": struct.pack("<4f", 1, 1, 1, float("nan"))}, "finite"),
        ({"prompt_ids": struct.pack("<4I", 0, 1, 2, 3)}, "prompt id 3"),
        ({"prompts": []}, "prompt"),
        ({"prompts": [{"text": ""}]}, "empty"),
        ({"prompts": [{"text": "a", "kind": "poem"}]}, "kind"),
        ({"mask_forms": bytes([7, 7, 7, 7])}, "form 7"),
        ({"mask_boxes": struct.pack("<16I", *[60, 40, 9, 9] * 4)}, "edge"),
        ({"mask_bytes": struct.pack("<4I", 1, 1, 1, 1)}, "fill"),
        ({"time": float("inf")}, "finite"),
        ({"seq": -1}, "seq"),
        ({"timings": {"a": "b"}}, "finite"),
        ({"parts": [["masks", "", 2**40]]}, "reaches over"),
        ({"parts": [["masks", 0, 1]]}, "described"),
        ({"parts": []}, "follow"),
    ],
)
def test_a_wrong_head_is_refused_with_its_reason(changes, reason):
    with pytest.raises(WireError, match=reason):
        decode_result(edited(encode_result(a_result(), ENVELOPE), **changes))


def test_another_version_is_refused_and_named():
    message = bytearray(encode_result(a_result(), ENVELOPE))
    message[4] = 2
    with pytest.raises(WireError, match="format version 2, this program reads 1"):
        decode_result(bytes(message))


@pytest.mark.parametrize("message", [b"", b"APES", b"\x80\x04K\x01.", b"X" * 40])
def test_strange_bytes_are_refused(message):
    with pytest.raises(WireError):
        decode_result(message)


def test_the_wrong_kind_is_refused():
    with pytest.raises(WireError, match="kind 2"):
        decode_result(encode_frame(a_frame(), ENVELOPE))
    with pytest.raises(WireError, match="kind 1"):
        decode_frame(encode_result(a_result(), ENVELOPE))


def test_every_truncation_is_refused():
    message = encode_result(a_result(), ENVELOPE, labels="zstd", image="jpeg")
    for length in range(0, len(message), 7):
        with pytest.raises(WireError):
            decode_result(message[:length])


def test_a_jpeg_that_is_cut_short_is_refused(capfd):
    message = encode_result(a_result(), ENVELOPE, labels="zstd", image="jpeg")
    end = message.rindex(b"\xff\xd9")
    with pytest.raises(WireError, match="cut short"):
        decode_result(message[:end] + b"\0\0" + message[end + 2 :])
    assert not capfd.readouterr().err


def test_a_jpeg_of_another_size_is_refused_before_it_is_decoded():
    _, bomb = cv2.imencode(".jpg", np.zeros((4000, 4000, 3), np.uint8))
    message = encode_frame(a_frame(), ENVELOPE)
    parts = [["image", "jpeg", bomb.size]]
    start = len(message) - head_of(message)["parts"][0][2]
    with pytest.raises(WireError, match="announced size"):
        decode_frame(edited(message[:start], parts=parts) + bomb.tobytes())


def test_a_compressed_map_of_another_size_is_refused():
    labels = np.zeros((480, 640), np.uint16)
    for codec in ("zstd", "lz4"):
        data = codecs.compress_labels(labels, codec)
        with pytest.raises(WireError, match="size of the image"):
            codecs.expand_labels(data, codec, 48, 64)
        with pytest.raises(WireError):
            codecs.expand_labels(data, codec, 4000, 8000)


def test_masks_beyond_the_limit_are_refused():
    message = encode_result(a_result(), ENVELOPE)
    with pytest.raises(WireError, match="more than 10 pixels"):
        decode_result(message, WireLimits(mask_pixels=10))


def test_what_no_reader_would_take_is_not_written():
    sent = a_result()
    sent.instances.scores.flags.writeable = False
    bad = Instances(
        np.full((1, 4), np.nan, np.float32),
        np.ones(1, np.float32),
        np.zeros(1, np.int64),
        (Mask(np.ones((1, 1), np.bool_)),),
        (48, 64),
    )
    with pytest.raises(WireError, match="finite"):
        encode_result(FrameResult(sent.frame, bad, PROMPTS), ENVELOPE)
    with pytest.raises(WireError, match="zero byte"):
        encode_result(sent, Envelope("a\0b", "r", 0))


def test_a_missing_library_names_its_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("msgpack"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(optional.importlib, "import_module", without)
    with pytest.raises(PluginError, match=r"ape-stream\[zmq\]"):
        encode_end(ENVELOPE)
