"""Pixels and messages after serialisation by rosbags."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from wire_samples import a_result

pytest.importorskip("rosbags")

from ape_nodes.ros2.encoder import byte_array
from ape_nodes.ros2.images import from_compressed, to_bgr
from ape_nodes.ros2.messages import RosFrame
from ape_nodes.ros2.publisher import ResultPublisher
from ape_nodes.ros2.space.results import SPACE_TOPICS
from ape_nodes.ros2.topics import OUTPUTS
from ape_nodes.ros2.types import plain_encoder, type_store
from ape_stream.errors import ConfigError, SourceError
from ape_stream.types import FrameResult, Maps, Prompt, PromptSet, SemanticMap

STORE = type_store()
ENCODER = plain_encoder(STORE)
TYPES = {spec.name: spec.type for spec in OUTPUTS}
BGR = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def message(encoding, pixels, *, padding=0, big=0):
    """A message with padding after each row, serialised and deserialised."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    header = ENCODER.header(RosFrame(BGR, 0, 0.0, stamp_ns=5, frame_id="f"))
    made = STORE.types["sensor_msgs/msg/Image"](
        header=header, height=height, width=width, encoding=encoding, is_bigendian=big,
        step=rows.shape[1], data=rows.ravel(),
    )  # fmt: skip
    raw = STORE.serialize_cdr(made, "sensor_msgs/msg/Image")
    return STORE.deserialize_cdr(raw, "sensor_msgs/msg/Image")


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("bgr8", BGR),
        ("rgb8", BGR[..., ::-1]),
        ("bgra8", np.dstack([BGR, np.full((4, 6), 9, np.uint8)])),
        ("rgba8", np.dstack([BGR[..., ::-1], np.full((4, 6), 9, np.uint8)])),
    ],
)
def test_colours_come_out_as_bgr(encoding, pixels, padding):
    got = to_bgr(message(encoding, np.ascontiguousarray(pixels), padding=padding))
    np.testing.assert_array_equal(got, BGR)


@pytest.mark.parametrize("padding", [0, 3])
def test_grey_becomes_bgr_and_16_bits_keep_the_upper_8(padding):
    grey = BGR[..., 0].copy()
    wide = grey.astype(np.uint16) * 256 + 13
    expected = np.repeat(grey[..., None], 3, 2)
    cases = [
        ("mono8", grey, 0),
        ("mono16", wide.astype("<u2"), 0),
        ("mono16", wide.astype(">u2"), 1),
    ]
    for encoding, pixels, big in cases:
        got = to_bgr(message(encoding, pixels, padding=padding, big=big))
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("encoding", "code"),
    [("yuv422", cv2.COLOR_YUV2BGR_UYVY), ("yuv422_yuy2", cv2.COLOR_YUV2BGR_YUY2)],
)
def test_yuv422_is_converted(encoding, code):
    packed = np.random.default_rng(1).integers(0, 256, (4, 6, 2), np.uint8)
    np.testing.assert_array_equal(to_bgr(message(encoding, packed)), cv2.cvtColor(packed, code))


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(("encoding", "order"), [("bgr16", 1), ("16UC3", 1), ("rgb16", -1)])
def test_colours_of_16_bits_keep_the_upper_8(encoding, order, padding):
    for kind, big in (("<u2", 0), (">u2", 1)):
        wide = (BGR.astype(np.uint16) * 256 + 13)[..., ::order].astype(kind)
        got = to_bgr(message(encoding, np.ascontiguousarray(wide), padding=padding, big=big))
        np.testing.assert_array_equal(got, BGR)


def in_yuv420(colour, interleaved):
    """An even image of one colour as a plane of brightness and half as many rows of colour."""
    image = np.full((8, 12, 3), colour, np.uint8)
    planar = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    u, v = planar[8:10].reshape(-1), planar[10:12].reshape(-1)
    pair = (u, v) if interleaved == "uv" else (v, u)
    return np.vstack([planar[:8], np.stack(pair, -1).reshape(4, 12)])


@pytest.mark.parametrize(("encoding", "order"), [("nv12", "uv"), ("nv21", "vu")])
@pytest.mark.parametrize("padding", [0, 4])
def test_two_planes_of_yuv_are_converted(encoding, order, padding):
    made = message(encoding, in_yuv420((200, 60, 30), order), padding=padding)
    made = SimpleNamespace(
        **{name: getattr(made, name) for name in ("encoding", "width", "step", "data")},
        height=8, is_bigendian=0,
    )  # fmt: skip
    got = to_bgr(made)
    assert got.shape == (8, 12, 3)
    assert np.abs(got.astype(int) - (200, 60, 30)).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_of_colours_is_resolved(pattern, bits):
    colour = {"b": 200, "g": 90, "r": 20}
    tile = np.array([colour[one] for one in pattern], np.uint8).reshape(2, 2)
    mosaic = np.tile(tile, (4, 5))
    if bits == 16:
        mosaic = (mosaic.astype(np.uint16) * 256 + 7).astype("<u2")
    got = to_bgr(message(f"bayer_{pattern}{bits}", mosaic))
    np.testing.assert_array_equal(got[3, 4], (200, 90, 20))


@pytest.mark.parametrize("encoding", ["BGR8", "Bgr8", "8uc3"])
def test_encodings_are_read_without_regard_to_case(encoding):
    np.testing.assert_array_equal(to_bgr(message(encoding, BGR)), BGR)


@pytest.mark.parametrize(
    "fields",
    [
        {"encoding": "poem"},
        {"height": 0},
        {"width": 2**31, "height": 2**31},
        {"step": 3},
        {"data": b"short"},
        {"encoding": "yuv422", "width": 5},
        {"encoding": "nv12", "height": 3},
        {"encoding": "nv12", "step": 18},
    ],
)
def test_images_with_impossible_fields_are_refused(fields):
    whole = {"encoding": "bgr8", "height": 4, "width": 6, "step": 18, "is_bigendian": 0}
    image = SimpleNamespace(**{**whole, "data": BGR.tobytes(), **fields})
    with pytest.raises(SourceError):
        to_bgr(image)


def test_rclpy_gets_bytes_as_an_array():
    packed = byte_array(b"\x01\xff")
    assert (packed.typecode, packed.tobytes()) == ("B", b"\x01\xff")


def test_a_jpeg_that_is_cut_short_is_refused(capfd):
    jpeg = cv2.imencode(".jpg", np.kron(BGR, np.ones((9, 9, 1), np.uint8)))[1]
    from_compressed(np.concatenate([jpeg, np.zeros(100, np.uint8)]))  # as some cameras pad it
    with pytest.raises(SourceError, match="cut short"):
        from_compressed(jpeg[: len(jpeg) // 2])
    assert not capfd.readouterr().err


def test_a_compressed_image_is_read_and_garbage_is_refused():
    png = cv2.imencode(".png", BGR)[1].tobytes()
    np.testing.assert_array_equal(from_compressed(png), BGR)
    for garbage in (b"", b"garbage"):
        with pytest.raises(SourceError):
            from_compressed(garbage)


def sent(result, has_readers=lambda _: True, **options):
    """Every message of a result, serialised and deserialised."""
    publisher = ResultPublisher(plain_encoder(STORE, **options), None)
    messages = {}
    for name, made in publisher.messages(result, has_readers):
        raw = STORE.serialize_cdr(made, TYPES[name])
        messages[name] = STORE.deserialize_cdr(raw, TYPES[name])
    return messages


def ros_result(n=4):
    plain = a_result(1, n)
    frame = RosFrame(plain.frame.image, 1, 0.1, stamp_ns=1_700_000_000_123_456_789, frame_id="lens")
    return FrameResult(frame, plain.instances, plain.prompts)


def test_every_message_holds_the_result():
    result = ros_result()
    messages = sent(result)
    assert set(messages) == {spec.name for spec in OUTPUTS} - set(SPACE_TOPICS)
    assert next(iter(messages)) == "label_info"  # names before what they name
    for made in (made for made in messages.values() if hasattr(made, "header")):
        stamp = made.header.stamp
        assert (stamp.sec, stamp.nanosec) == (1_700_000_000, 123_456_789)
        assert made.header.frame_id == "lens"
    found = messages["detections"].detections
    for k, one in enumerate(found):
        x1, y1, x2, y2 = result.instances.boxes[k].tolist()
        assert (
            one.results[0].hypothesis.class_id
            == result.prompts[int(result.instances.prompt_ids[k])].text
        )
        assert one.id == str(k + 1)
        assert one.bbox.center.position.x == (x1 + x2) / 2
        assert (one.bbox.size_x, one.bbox.size_y) == (x2 - x1, y2 - y1)
    classes = messages["label_info"].class_map
    assert [(c.class_id, c.class_name) for c in classes] == list(enumerate(result.prompts.texts, 1))


def test_maps_name_classes_and_detections():
    result = ros_result()
    messages = sent(result)
    labels = messages["label_image"].data.view("<u2").reshape(result.frame.size)
    numbers = messages["instance_image"].data.view("<u2").reshape(result.frame.size)
    assert messages["label_image"].step == 2 * result.frame.size[1]
    for k, mask in enumerate(result.instances.masks, 1):
        ys, xs = np.nonzero(numbers == k)
        assert mask.bitmap[ys - mask.y, xs - mask.x].all()
        assert (labels[ys, xs] == result.instances.prompt_ids[k - 1] + 1).all()
    np.testing.assert_array_equal(numbers > 0, labels > 0)
    png = cv2.imdecode(messages["label_image/compressed"].data, cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(png, labels)
    assert messages["label_image/compressed"].format == "mono16; png compressed "


def test_the_label_image_is_the_semantic_map_where_there_is_one():
    result = ros_result()
    ids = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) % 4
    mapped = FrameResult(
        result.frame, result.instances, result.prompts, maps=Maps(SemanticMap(ids))
    )
    labels = sent(mapped)["label_image"].data.view("<u2").reshape(48, 64)
    np.testing.assert_array_equal(labels, ids)


@pytest.mark.parametrize(
    ("source", "read", "needed"),
    [
        ("semantic", "label_image", {"semantic"}),
        ("semantic", "label_image/compressed", {"semantic"}),
        ("semantic", "instance_image", set()),
        ("instances", "label_image", set()),
    ],
)
def test_a_semantic_map_is_made_while_the_label_image_has_readers(source, read, needed):
    topics = SimpleNamespace(has_readers=lambda name: name == read)
    assert ResultPublisher(plain_encoder(STORE), topics, label_source=source).maps == needed


def test_mono8_is_used_where_asked():
    messages = sent(ros_result(), mask_encoding="mono8")
    assert messages["label_image"].encoding == "mono8"
    assert messages["instance_image"].encoding == "mono8"
    with pytest.raises(ConfigError):
        plain_encoder(STORE, "mono4")


@pytest.mark.parametrize(("count", "encoding"), [(254, "mono8"), (255, "mono16")])
def test_255_means_unlabeled_so_mono8_holds_254_classes(count, encoding):
    """By the number of prompts, not by what is in the frame: the encoding does not alternate."""
    plain = ros_result()
    prompts = PromptSet.of([f"word {k}" for k in range(count)])
    result = FrameResult(plain.frame, plain.instances, prompts)
    assert sent(result, mask_encoding="mono8")["label_image"].encoding == encoding


def test_the_threshold_of_the_names_is_the_lowest_in_force():
    encoder = plain_encoder(STORE)
    prompts = PromptSet((Prompt("cat"), Prompt("dog", threshold=0.6)))
    header = encoder.header(ros_result().frame)
    encoder.model_threshold = 0.25
    assert encoder.label_info(header, prompts).threshold == 0.25
    assert encoder.label_info(header, prompts.with_threshold(0.7)).threshold == 0.6


def test_without_readers_only_detections_are_made_and_names_once():
    result = ros_result()
    publisher = ResultPublisher(ENCODER, None)
    names = [[name for name, _ in publisher.messages(result, lambda _: False)] for _ in range(2)]
    always = [spec.name for spec in OUTPUTS if not spec.lazy]
    assert names == [always, always[1:]] == [["label_info", "detections"], ["detections"]]


LAZY = [spec for spec in OUTPUTS if spec.lazy and spec.name not in SPACE_TOPICS]


@pytest.mark.parametrize("spec", LAZY, ids=lambda s: s.name)
def test_a_lazy_topic_is_made_for_its_reader_alone(spec):
    messages = sent(ros_result(), lambda name: name == spec.name)
    assert set(messages) == {"label_info", "detections", spec.name}


def test_the_shipped_types_have_the_hashes_of_vision_msgs():
    assert STORE.hash_rihs01("vision_msgs/msg/Detection2DArray").startswith("RIHS01_")
    assert len([name for name in STORE.types if name.startswith("vision_msgs/")]) == 12
