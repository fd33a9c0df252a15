"""Every topic as data: the node, the `ros2` sink, bags and docs/ros2.md are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "DIAGNOSTICS",
    "INPUTS",
    "IN_FORCE",
    "LABEL_SOURCES",
    "OUTPUTS",
    "LabelSource",
    "TopicSpec",
    "as_table",
    "ros_name",
]


LabelSource = Literal["instances", "semantic"]
"""What `label_image` is made from: masks painted, small ones over large ones, or semantic maps."""
LABEL_SOURCES: Final[tuple[LabelSource, ...]] = ("instances", "semantic")


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic."""

    name: str
    """Relative to the node (outputs: below `~/`)."""
    type: str
    """ROS 2 type."""
    reliable: bool
    """Reliability: RELIABLE or BEST_EFFORT."""
    latched: bool
    """Durability: TRANSIENT_LOCAL or VOLATILE."""
    depth: int
    """History: KEEP_LAST of this depth."""
    lazy: bool
    """True: made only while somebody is subscribed."""
    description: str
    """What it holds."""


# In this order they are sent: names before the maps that they name.
OUTPUTS: Final = (
    TopicSpec("label_info", "vision_msgs/msg/LabelInfo", True, True, 1, False,
              "names of the values in `label_image`; sent before the first frame they apply to"),
    TopicSpec("detections", "vision_msgs/msg/Detection2DArray", True, False, 10, False,
              "`class_id` = the phrase, `id` = the track, box in pixels of the input"),
    TopicSpec("label_image", "sensor_msgs/msg/Image", True, False, 2, True,
              "0 = background, k = class k of `label_info`; see `label_source`"),
    TopicSpec("instance_image", "sensor_msgs/msg/Image", True, False, 2, True,
              "0 = none, k = `detections[k-1]` of the same stamp"),
    TopicSpec("label_image/compressed", "sensor_msgs/msg/CompressedImage", False, False, 5, True,
              "the same as PNG; best for a remote reader"),
    TopicSpec("instance_image/compressed", "sensor_msgs/msg/CompressedImage", False, False, 5, True,
              "the same as PNG"),
    TopicSpec("confidence_image", "sensor_msgs/msg/Image", True, False, 2, True,
              "mono8: score of what `label_image` holds there, 255 = 1.0, 0 = background"),
    TopicSpec("detections_3d", "vision_msgs/msg/Detection3DArray", True, False, 10, True,
              "needs depth: a box in metres for each of `detections` that has depth"),
    TopicSpec("points", "sensor_msgs/msg/PointCloud2", True, False, 2, True,
              "needs depth: the masked points with `rgb`, `label`, `instance`, `score`"),
    TopicSpec("aligned_points", "sensor_msgs/msg/PointCloud2", True, False, 2, True,
              "needs depth: x, y, z of every pixel of `label_image`, NaN where there is none"),
    TopicSpec("markers", "visualization_msgs/msg/MarkerArray", True, False, 2, True,
              "needs depth: the boxes with names and distances, for RViz"),
    TopicSpec("annotations", "foxglove_msgs/msg/ImageAnnotations", True, False, 10, True,
              "boxes, contours and names for Foxglove's image panel"),
    TopicSpec("overlay", "sensor_msgs/msg/Image", True, False, 2, True,
              "the image with masks and names drawn in, bgr8"),
    TopicSpec("overlay/compressed", "sensor_msgs/msg/CompressedImage", False, False, 5, True,
              "the same as JPEG"),
)  # fmt: skip

INPUTS: Final = (
    TopicSpec("image", "sensor_msgs/msg/Image", False, False, 5, True,
              "the image; subscribed to only while an output has a reader"),
    TopicSpec("image/compressed", "sensor_msgs/msg/CompressedImage", False, False, 5, True,
              "instead of `image`, with `image_transport:=compressed`"),
    TopicSpec("image/ffmpeg", "ffmpeg_image_transport_msgs/msg/FFMPEGPacket", False, False, 30,
              True, "instead of `image`, with `image_transport:=ffmpeg`"),
    TopicSpec("image/video", "foxglove_msgs/msg/CompressedVideo", False, False, 30, True,
              "instead of `image`, with `image_transport:=foxglove`"),
    TopicSpec("depth", "sensor_msgs/msg/Image", False, False, 5, True,
              "with `depth:=image`: 16UC1 millimetres or 32FC1 metres"),
    TopicSpec("depth/compressedDepth", "sensor_msgs/msg/CompressedImage", False, False, 5, True,
              "instead of `depth`, with `depth:=compressed`: its PNG (compressedDepth)"),
    TopicSpec("points", "sensor_msgs/msg/PointCloud2", False, False, 5, True,
              "with `depth:=points`: organised or not, in any frame that tf connects"),
    TopicSpec("camera_info", "sensor_msgs/msg/CameraInfo", False, False, 5, True,
              "with depth: the calibration of the image"),
    TopicSpec("depth/camera_info", "sensor_msgs/msg/CameraInfo", False, False, 5, True,
              "with depth that is not in the frame of the image: its calibration"),
    TopicSpec("/tf", "tf2_msgs/msg/TFMessage", True, False, 100, True,
              "with depth: where depth and `target_frame` are"),
    TopicSpec("/tf_static", "tf2_msgs/msg/TFMessage", True, True, 100, True, "the same"),
    TopicSpec("~/prompts", "std_msgs/msg/String", True, True, 1, False,
              "new prompts as a comma-separated line; also subscribed to as volatile, for"
              " `ros2 topic pub`"),
)  # fmt: skip

IN_FORCE: Final = TopicSpec(
    "prompts_in_force", "std_msgs/msg/String", True, True, 1, False,
    "JSON: `prompts` and `thresholds` (null = the model's own) that are active, and `refused`: why"
    " the last ones given were not taken, or empty",
)  # fmt: skip

DIAGNOSTICS: Final = TopicSpec(
    "/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", True, False, 10, False,
    "once a second: state, prompts, rates, ages, times by stage, drops by cause, memory",
)  # fmt: skip


def ros_name(text: str) -> str:
    """A stream's name as one part of a topic or node name: letters, digits, underscores."""
    # A name may not begin with a digit, and stream names often do ("0").
    letters = "".join(c if c.isalnum() and c.isascii() else "_" for c in text)
    return f"s{letters}" if letters[:1].isdigit() else letters or "stream"


def as_table(topics: tuple[TopicSpec, ...], prefix: str = "") -> str:
    """A Markdown table of topics."""
    lines = ["| topic | type | QoS | made | what |", "|---|---|---|---|---|"]
    for topic in topics:
        qos = f"{'reliable' if topic.reliable else 'best effort'}, "
        qos += f"{'transient local' if topic.latched else 'volatile'}, depth {topic.depth}"
        made = "while somebody is subscribed" if topic.lazy else "always"
        name = topic.name if topic.name.startswith("/") else f"{prefix}{topic.name}"
        lines.append(f"| `{name}` | {topic.type} | {qos} | {made} | {topic.description} |")
    return "\n".join(lines)
