import subprocess
import sys
import time

import numpy as np
import pytest
from wire_samples import a_result

pytest.importorskip("rosbags")

from rosbags.highlevel import AnyReader

from ape_nodes.ros2.bag import BagSink, BagSource
from ape_nodes.ros2.messages import RosFrame
from ape_nodes.ros2.types import type_store
from ape_stream.errors import ConfigError, SourceError, TruncatedError
from ape_stream.types import FrameResult

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
                     "instance_image/compressed")
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


RECORDER = """
import sys, time
import numpy as np
from ape_nodes.ros2.bag import BagSink
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


def test_a_folder_with_several_recordings_and_no_metadata_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"has no metadata\.yaml, and holds no recording"):
        BagSource(f"bag://{tmp_path}").__enter__()
    for name in ("a.mcap", "b.mcap"):
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match=r"holds a\.mcap, b\.mcap: name one"):
        BagSource(f"bag://{tmp_path}").__enter__()


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
        except ConfigError as error:  # not even the first image was whole
            assert "no image topics" in str(error)  # noqa: PT017
        assert stamps == [START + k for k in range(len(stamps))]
        assert path.read_bytes() == whole[:size]
        counts.append(len(stamps))
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2, 3}
