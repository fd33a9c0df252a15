"""The other side of the DDS tests: `camera [height width]` publishes, `watch [word]` and `health`
report, `ape words` is a whole node of ours.
"""

import json
import sys
import time

import numpy as np

from ape_nodes.ros2.dds.backend import DdsNode
from ape_nodes.ros2.messages import RosFrame
from ape_nodes.ros2.sink import Ros2Sink
from ape_nodes.ros2.source import Ros2Source
from ape_nodes.ros2.topics import DIAGNOSTICS, OUTPUTS, TopicSpec
from ape_nodes.ros2.types import plain_encoder
from ape_stream.pipeline import Pipeline
from ape_stream.testing import OraclePerceiver
from ape_stream.types import PromptSet


def camera(height=48, width=64):
    node = DdsNode("camera")
    spec = TopicSpec("", "sensor_msgs/msg/Image", True, False, 2, False, "")
    writer = node.writer("/camera/image_raw", spec)
    encoder = plain_encoder(node.store)
    pixels = np.random.default_rng(1).integers(0, 256, (int(height), int(width), 3), np.uint8)
    for index in range(3000):
        stamp = 1_700_000_000_000_000_001 + index
        frame = RosFrame(pixels, index, 0.0, stamp_ns=stamp, frame_id="lens")
        writer.write(encoder.image(encoder.header(frame), pixels))
        time.sleep(0.03)


def stamp_of(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def watch(word=None):
    node = DdsNode("watcher")
    specs = {spec.name: spec for spec in OUTPUTS}
    wanted = ("label_info", "detections", "label_image")
    readers = {name: node.reader(f"/robot/ape/{name}", specs[name]) for name in wanted}
    label_info = None
    # By their stamps: of the newest of each, one may be a frame ahead of the other every time.
    detections, label_images = {}, {}
    while True:
        for message in readers["label_info"].take(0.02):
            label_info = message
        for name, waiting in (("detections", detections), ("label_image", label_images)):
            waiting |= {stamp_of(message): message for message in readers[name].take(0.02)}
        if label_info is None:
            continue
        for stamp in sorted(detections.keys() & label_images.keys()):
            report = report_of(label_info, detections.pop(stamp), label_images.pop(stamp))
            if word is None or (word in report["classes"] and report["ids"] == [word]):
                print(json.dumps(report), flush=True)  # noqa: T201


def report_of(label_info, detections, label_image):
    return {
        "classes": [entry.class_name for entry in label_info.class_map],
        "ids": [entry.results[0].hypothesis.class_id for entry in detections.detections],
        "labels": np.unique(label_image.data.view("<u2")).tolist(),
        "frame_id": detections.header.frame_id,
        "stamp": stamp_of(detections),
        "image_stamp": stamp_of(label_image),
    }


def ape(words):
    """Images in, results out, until it is killed."""
    source = Ros2Source("ros2:///camera/image_raw", timeout_s=100)
    sink = Ros2Sink("ros2:/robot/ape")
    with Pipeline([source], OraclePerceiver(), PromptSet.of(words), sinks=[sink]) as run:
        for _ in run:
            pass


def health():
    """The values of /diagnostics, as a node like diagnostic_aggregator receives them."""
    node = DdsNode("aggregator")
    reader = node.reader("/diagnostics", DIAGNOSTICS)
    while True:
        for message in reader.take(0.2):
            (status,) = message.status
            values = {pair.key: pair.value for pair in status.values}
            report = {"name": status.name, "level": status.level, "values": values}
            print(json.dumps(report), flush=True)  # noqa: T201


if __name__ == "__main__":
    {"camera": camera, "watch": watch, "health": health, "ape": ape}[sys.argv[1]](*sys.argv[2:])
