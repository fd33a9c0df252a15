import numpy as np
import pytest
from wire_samples import a_result

pytest.importorskip("rosbags")

from rosbags.highlevel import AnyReader

from ape_nodes.ros2.bag import BagSink, BagSource
from ape_nodes.ros2.messages import RosFrame
from ape_nodes.ros2.types import type_store
from ape_stream.errors import ConfigError, SourceError
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


def test_wrong_bags_are_told(tmp_path):
    with pytest.raises(ConfigError, match="no bag"):
        BagSource(f"bag://{tmp_path / 'none'}")
    with pytest.raises(ConfigError, match="never overwritten"):
        BagSink(f"bag:{tmp_path}")
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"\x89MCAP0\r\n" + bytes(50))
    with pytest.raises(SourceError, match="cannot be read"):
        BagSource(f"bag://{broken}").__enter__()
