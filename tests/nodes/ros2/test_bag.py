import subprocess
import sys
import time

import numpy as np
import pytest
from depth_messages import FRAME, a_depth_image, an_info, tf_message, video_packets
from wire_samples import a_result

pytest.importorskip("rosbags")

from rosbags.highlevel import AnyReader

from ape_nodes.ros2.bags.sink import BagSink
from ape_nodes.ros2.bags.source import BagSource
from ape_nodes.ros2.messages import RosFrame
from ape_nodes.ros2.types import plain_encoder, type_store
from ape_stream.errors import ConfigError, SourceError, TruncatedError
from ape_stream.masks import boxes, crop
from ape_stream.types import FrameResult, Instances, PromptSet

START = 1_700_000_000_000_000_007


def ros_result(index):
    plain = a_result(index)
    frame = RosFrame(plain.frame.image, index, 0.0, "cam", stamp_ns=START + index, frame_id="lens")
    return FrameResult(frame, plain.instances, plain.prompts)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_gives_back_images_and_stamps(tmp_path, storage):
    folder = tmp_path / "run"
    with BagSink(f"bag:{folder}", storage=storage) as sink:
        for k in range(3):
            sink.write(ros_result(k))
    where = folder if storage == "sqlite3" else next(folder.glob("*.mcap"))
    with BagSource(f"bag://{where}", name="again") as source:
        frames = list(source)
        assert source.frame_count == 3
    assert [frame.stamp_ns for frame in frames] == [START, START + 1, START + 2]
    assert {frame.frame_id for frame in frames} == {"lens"}
    np.testing.assert_array_equal(frames[2].image, ros_result(2).frame.image)


def test_a_bag_holds_detections_masks_and_names(tmp_path):
    with BagSink(f"bag:{tmp_path / 'run'}") as sink:
        sink.write(ros_result(1))
    with AnyReader([tmp_path / "run"], default_typestore=type_store()) as reader:
        found = {c.topic: reader.deserialize(d, c.msgtype) for c, _, d in reader.messages()}
    assert set(found) == {
        f"/ape/cam/{name}"
        for name in ("image", "label_info", "detections", "label_image/compressed",
                     "instance_image/compressed", "annotations")
    }  # fmt: skip
    assert found["/ape/cam/detections"].detections[0].id == "1"


def test_wrong_bags_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no bag"):
        BagSource(f"bag://{tmp_path / 'none'}")
    with pytest.raises(ConfigError, match="never overwritten"):
        BagSink(f"bag:{tmp_path}")
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"\x89MCAP0\r\n" + bytes(50))
    with pytest.raises(SourceError, match="cannot be read"):
        BagSource(f"bag://{broken}").__enter__()


def test_a_bag_with_a_definition_that_lacks_a_field_is_refused(tmp_path):
    with BagSink(f"bag:{tmp_path / 'run'}") as sink:
        sink.write(ros_result(0))
    (path,) = (tmp_path / "run").glob("*.mcap")
    path.write_bytes(path.read_bytes().replace(b"uint32 width", b"uint32 wydth"))
    with pytest.raises(SourceError, match="definition of sensor_msgs/msg/Image has no width"):
        BagSource(f"bag://{path}").__enter__()


RECORDER = """
import sys, time
import numpy as np
from ape_nodes.ros2.bags.sink import BagSink
from ape_stream.types import Frame, FrameResult, Instances, PromptSet

with BagSink("bag:" + sys.argv[1], storage=sys.argv[2]) as sink:
    for k in range(10_000):
        image = np.full((120, 160, 3), k % 256, np.uint8)
        frame = Frame(image, k, k / 50, "cam")
        sink.write(FrameResult(frame, Instances.empty(frame.size), PromptSet.of("cat")))
        print(k, flush=True)
        time.sleep(0.02)
"""


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def killed(request, tmp_path_factory):
    """A bag whose recorder was killed with SIGKILL after 2.2 s, and how many images it had."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    command = [sys.executable, "-c", RECORDER, str(folder), request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as recorder:
        recorder.stdout.readline()
        time.sleep(2.2)
        recorder.kill()
        written = 1 + len(recorder.stdout.readlines())
    return folder, written


def test_a_bag_whose_recorder_was_killed_is_read_as_far_as_it_was_written(killed, caplog):
    folder, written = killed
    values = []
    with BagSource(f"bag://{folder}") as source:
        promised = source.frame_count
        with pytest.raises(TruncatedError, match=r"interrupted; \d+ images were read"):
            values.extend(int(frame.image[0, 0, 0]) for frame in source)
    assert "has no metadata.yaml" in caplog.text
    assert values == [k % 256 for k in range(len(values))]
    assert promised == len(values)
    assert written - 70 < len(values) <= written  # at most a second is missing, at 50 a second


@pytest.mark.parametrize("killed", ["mcap"], indirect=True)
def test_a_recording_whose_recorder_was_killed_is_read_by_other_readers(killed):
    make_reader = pytest.importorskip("mcap.reader").make_reader
    folder, written = killed
    (path,) = folder.glob("*.mcap")
    with path.open("rb") as file:
        images = list(make_reader(file).iter_messages(topics=["/ape/cam/image"]))
    assert written - 70 < len(images) <= written
    with AnyReader([path]) as reader:
        topics = [connection.topic for connection, *_ in reader.messages()]
    assert topics.count("/ape/cam/image") == len(images)


def test_the_end_for_now_leaves_nothing_in_a_whole_recording(tmp_path):
    with BagSink(f"bag:{tmp_path / 'run'}") as sink:
        for k in range(3):
            sink.write(ros_result(k))
            sink._flushed_s = 0.0  # each image in a chunk of its own
    (path,) = (tmp_path / "run").glob("*.mcap")
    assert b"not closed" not in path.read_bytes()
    with BagSource(f"bag://{path}") as source:
        assert len(list(source)) == 3


def test_a_folder_with_several_recordings_and_no_metadata_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"has no metadata\.yaml, and holds no recording"):
        BagSource(f"bag://{tmp_path}").__enter__()
    for name in ("a.mcap", "b.mcap"):
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match=r"holds a\.mcap, b\.mcap: name one"):
        BagSource(f"bag://{tmp_path}").__enter__()


@pytest.mark.parametrize(("storage", "suffix"), [("mcap", ".mcap"), ("sqlite3", ".db3")])
def test_a_split_recording_whose_recorder_was_killed_is_read_in_order(
    tmp_path, storage, suffix, caplog
):
    folder = tmp_path / "drive"
    folder.mkdir()
    for part in range(3):
        with BagSink(f"bag:{tmp_path / str(part)}", storage=storage) as sink:
            for k in range(2):
                sink.write(ros_result(2 * part + k))
                sink._flushed_s = 0.0  # each image in a chunk of its own
        (made,) = (tmp_path / str(part)).glob(f"*{suffix}")
        made.rename(folder / f"drive_{9 + part}{suffix}")
    last = folder / f"drive_11{suffix}"
    if storage == "mcap":
        last.write_bytes(last.read_bytes()[:-50])
    (folder / f"drive_12{suffix}").touch()  # a part that was just begun
    stamps = []
    with BagSource(f"bag://{folder}") as source, pytest.raises(TruncatedError, match="interrupted"):
        stamps.extend(frame.stamp_ns for frame in source)
    assert stamps == [START + k for k in range(6)]
    assert f"drive_9{suffix}" in caplog.text


def test_a_recording_is_read_wherever_it_was_cut_off(tmp_path):
    with BagSink(f"bag:{tmp_path / 'run'}") as sink:
        for k in range(3):
            sink.write(ros_result(k))
            sink._flushed_s = 0.0  # each image in a chunk of its own
    whole = next((tmp_path / "run").glob("*.mcap")).read_bytes()
    path = tmp_path / "cut.mcap"
    counts = []
    for size in range(len(whole) // 10, len(whole), len(whole) // 20):
        path.write_bytes(whole[:size])
        stamps = []
        try:
            with BagSource(f"bag://{path}") as source, pytest.raises(TruncatedError):
                stamps.extend(frame.stamp_ns for frame in source)
        except SourceError as error:  # not even the first image was whole
            assert "interrupted before the first image" in str(error)  # noqa: PT017
        assert stamps == [START + k for k in range(len(stamps))]
        assert path.read_bytes() == whole[:size]
        counts.append(len(stamps))
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2, 3}


# -- depth, looks, and what else a bag holds ------------------------------------------------------


def messages_of(folder):
    """Every message by its topic, in the order of the bag."""
    found = {}
    with AnyReader([folder], default_typestore=type_store()) as reader:
        for connection, time_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((time_ns, message))
    return found


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """A bag of a robot: image, depth in another frame a little later, calibration and tf."""
    folder = tmp_path_factory.mktemp("drive") / "drive"
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    store, pixels = type_store(), np.zeros((48, 64, 3), np.uint8)
    depth = np.full((48, 64), 2000, np.uint16)
    with rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        made = {}

        def write(topic, kind, message, time_ns):
            if topic not in made:
                made[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(made[topic], time_ns, store.serialize_cdr(message, kind))

        for k in range(3):
            stamp = START + 100_000_000 * k
            frame = RosFrame(pixels, k, 0.0, stamp_ns=stamp, frame_id=FRAME)
            encoder = plain_encoder(store)
            image = encoder.image(encoder.header(frame), pixels)
            write("/cam/image_raw", "sensor_msgs/msg/Image", image, stamp)
            info = an_info((48, 64), stamp_ns=stamp)
            write("/cam/camera_info", "sensor_msgs/msg/CameraInfo", info, stamp)
            if k < 2:
                late = a_depth_image(depth, stamp_ns=stamp + 5_000_000, frame_id="depth_lens")
                write("/cam/depth/image", "sensor_msgs/msg/Image", late, stamp + 5_000_000)
            write("/cam/depth/camera_info", "sensor_msgs/msg/CameraInfo", info, stamp)
        static = tf_message(FRAME, "mount", 0, (0.0, 0.0, 0.5))
        write("/tf_static", "tf2_msgs/msg/TFMessage", static, START + 1)
        # Every image lies between two of these, the second of which is recorded after its depth.
        for stamp in range(START - 25_000_000, START + 400_000_000, 50_000_000):
            turned = tf_message("mount", "depth_lens", stamp, (0.0, 0.0, 0.0))
            write("/tf", "tf2_msgs/msg/TFMessage", turned, stamp)
    return folder


def test_images_of_a_bag_get_their_depth_moved_by_tf(drive, caplog):
    with BagSource(f"bag://{drive}", depth="/cam/depth/image") as source:
        frames = list(source)
    assert [frame.depth is not None for frame in frames] == [True, True, False]
    values = frames[0].depth.metres()
    assert np.median(values[values > 0]) == pytest.approx(2.5)
    assert "image 2 has no depth: no depth within the slop" in caplog.text


def test_topics_that_depth_needs_are_named_when_they_are_not_there(drive):
    with pytest.raises(ConfigError, match=r"no /x of .*it has /cam/depth/image, /cam/image_raw"):
        BagSource(f"bag://{drive}", depth="/x").__enter__()
    with pytest.raises(ConfigError, match=r"no /y of .*CameraInfo; it has /cam/camera_info"):
        BagSource(f"bag://{drive}", depth="/cam/depth/image", camera_info="/y").__enter__()


def test_a_bag_of_results_holds_boxes_in_space_and_the_other_topics(drive, tmp_path):
    with (
        BagSource(f"bag://{drive}", name="cam", depth="/cam/depth/image") as source,
        BagSink(f"bag:{tmp_path / 'out'}", copy=str(drive), image="compressed", overlay=True,
                masks="none") as sink,
    ):  # fmt: skip
        for frame in source:
            shape = np.zeros((48, 64), bool)
            shape[10:30, 20:50] = True
            found = (crop(shape),)
            instances = Instances(boxes(found), np.array([0.5], np.float32), np.array([0]), found,
                                  (48, 64))  # fmt: skip
            sink.write(FrameResult(frame, instances, PromptSet.of("box")))
    held = messages_of(tmp_path / "out")
    ours = {topic.removeprefix("/ape/cam/") for topic in held if topic.startswith("/ape/")}
    assert ours == {"image/compressed", "overlay/compressed", "label_info", "detections",
                    "annotations", "detections_3d", "markers", "points"}  # fmt: skip
    assert len(held["/ape/cam/detections"]) == 3
    (first, _) = (message for _, message in held["/ape/cam/detections_3d"])
    assert first.detections[0].bbox.center.position.z == pytest.approx(2.5, abs=0.02)
    copied = set(held) - {topic for topic in held if topic.startswith("/ape/")}
    assert copied == {"/cam/camera_info", "/cam/depth/image", "/cam/depth/camera_info", "/tf",
                      "/tf_static"}  # fmt: skip
    original = messages_of(drive)
    for topic in copied:
        assert [time for time, _ in held[topic]] == [time for time, _ in original[topic]]


def test_another_reader_finds_the_same_in_a_bag_of_results(drive, tmp_path):
    """mcap_ros2 decodes by the definitions in the file; ours are of rosbags."""
    reader = pytest.importorskip("mcap.reader", reason="needs mcap-ros2-support (extra dev)")
    decoder = pytest.importorskip("mcap_ros2.decoder")
    with (
        BagSource(f"bag://{drive}", name="cam", depth="/cam/depth/image") as source,
        BagSink(f"bag:{tmp_path / 'out'}", image="none") as sink,
    ):
        frame = next(iter(source))
        shape = np.zeros((48, 64), bool)
        shape[10:30, 20:50] = True
        found = (crop(shape),)
        instances = Instances(boxes(found), np.array([0.5], np.float32), np.array([0]), found,
                              (48, 64))  # fmt: skip
        sink.write(FrameResult(frame, instances, PromptSet.of("box")))
    with (tmp_path / "out" / "out.mcap").open("rb") as file:
        decoded = reader.make_reader(file, decoder_factories=[decoder.DecoderFactory()])
        theirs = {channel.topic: message for _, channel, _, message in
                  decoded.iter_decoded_messages()}  # fmt: skip
    ours = {topic: message for topic, ((_, message),) in messages_of(tmp_path / "out").items()}
    assert set(theirs) == set(ours)
    assert {"detections_3d", "points", "markers", "annotations"} < {t[9:] for t in theirs}
    for topic, message in ours.items():
        same_fields(theirs[topic], message, topic)


def same_fields(theirs, ours, where):
    """Every value that the other reader has decoded is ours."""
    if hasattr(ours, "__msgtype__"):
        names = [name for name in vars(ours) if name.islower() and name[0] != "_"]  # no constants
        assert names
        for name in names:
            same_fields(getattr(theirs, name), getattr(ours, name), f"{where}.{name}")
    elif isinstance(ours, list):
        assert len(theirs) == len(ours), where
        for one, other in zip(theirs, ours, strict=True):
            same_fields(one, other, where)
    elif isinstance(ours, np.ndarray):
        assert np.array_equal(np.frombuffer(theirs, np.uint8) if isinstance(theirs, bytes)
                              else np.array(theirs), ours), where  # fmt: skip
    else:
        assert theirs == ours, where


@pytest.mark.parametrize(
    ("start", "seconds"),
    [("2026-11-29T08:00:00", 1_795_939_200), ("2026-11-29T09:00:00+01:00", 1_795_939_200),
     (12.5, 12.5)],
)  # fmt: skip
def test_frames_of_files_are_stamped_from_a_start(tmp_path, start, seconds):
    with BagSink(f"bag:{tmp_path / 'run'}", start=start, masks="none") as sink:
        sink.write(a_result(3))
    ((time_ns, message),) = messages_of(tmp_path / "run")[f"/ape/{a_result(3).frame.stream}/image"]
    shown = a_result(3).frame.time_s
    assert time_ns == pytest.approx((seconds + shown) * 1e9, abs=1e3)
    assert message.header.stamp.sec == int(seconds + shown)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"start": "noon"}, "no date such as"), ({"start": -1}, "not between 1970"),
     ({"image": "png"}, "raw, compressed or none"), ({"copy": "/no/bag"}, "to copy from")],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        BagSink(f"bag:{tmp_path / 'run'}", **options)


@pytest.mark.parametrize("kind", ["foxglove_msgs/msg/CompressedVideo",
                                  "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"])  # fmt: skip
def test_a_topic_of_compressed_video_is_read(tmp_path, kind):
    rosbag2, store = pytest.importorskip("rosbags.rosbag2"), type_store()
    with rosbag2.Writer(tmp_path / "v", version=9) as writer:
        connection = writer.add_connection("/cam/video", kind, typestore=store)
        for k, packet in enumerate(video_packets(kind, 5)):
            writer.write(connection, START + k, store.serialize_cdr(packet, kind))
    with BagSource(f"bag://{tmp_path / 'v'}") as source:
        frames = list(source)
    assert [frame.stamp_ns for frame in frames] == [START + k for k in range(5)]
    assert {frame.frame_id for frame in frames} == {FRAME}
    greys = [float(frame.image.mean()) for frame in frames]
    assert greys == pytest.approx([40 * k + 40 for k in range(5)], abs=4)
