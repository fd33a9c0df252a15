"""Messages of a depth camera, as rosbags has them."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

pytest.importorskip("rosbags")

from ape_nodes.ros2.images import to_png
from ape_nodes.ros2.types import blank, type_store

STORE = type_store()
FRAME = "lens"
FLOAT32 = 7


def a_header(stamp_ns=0, frame_id=FRAME):
    header = blank(STORE, "std_msgs/msg/Header")
    header.frame_id = frame_id
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return header


def made(kind, **fields):
    message = blank(STORE, kind)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def a_depth_image(values, *, padding=0, big=0, stamp_ns=0, frame_id=FRAME):
    encoding = {"u": "16UC1", "f": "32FC1"}[values.dtype.kind]
    stored = values.astype(values.dtype.newbyteorder(">" if big else "<"))
    rows = np.pad(stored.view(np.uint8), ((0, 0), (0, padding)))
    height, width = values.shape
    return made(
        "sensor_msgs/msg/Image", header=a_header(stamp_ns, frame_id), height=height, width=width,
        encoding=encoding, is_bigendian=big, step=rows.shape[1], data=rows.ravel(),
    )  # fmt: skip


def a_compressed_depth_image(metres, encoding, *, stamp_ns=0, frame_id=FRAME):
    """As compressed_depth_image_transport writes it, with its default quantisation and 10 m."""
    if encoding == "16UC1":
        config, values = struct.pack("<iff", 0, 0.0, 0.0), np.rint(1000 * metres).astype(np.uint16)
    else:
        a = 100.0 * (100.0 + 1.0)
        b = 1.0 - a / 10.0
        config = struct.pack("<iff", 1, a, b)
        with np.errstate(divide="ignore"):
            values = np.where(metres > 0, np.rint(a / metres + b), 0).astype(np.uint16)
    data = np.frombuffer(config + to_png(values), np.uint8)
    header, form = a_header(stamp_ns, frame_id), f"{encoding}; compressedDepth png"
    return made("sensor_msgs/msg/CompressedImage", header=header, format=form, data=data)


def a_cloud(points, *, extra=0, stamp_ns=0, frame_id=FRAME):
    height, width = points.shape[:2]
    step = 12 + extra
    rows = np.pad(points.view(np.uint8).reshape(height, width, 12), ((0, 0), (0, 0), (0, extra)))
    fields = [made("sensor_msgs/msg/PointField", name=name, offset=4 * k, datatype=FLOAT32, count=1)
              for k, name in enumerate("xyz")]  # fmt: skip
    return made(
        "sensor_msgs/msg/PointCloud2", header=a_header(stamp_ns, frame_id), height=height,
        width=width, fields=fields, point_step=step, row_step=step * width, data=rows.ravel(),
    )  # fmt: skip


def an_info(size, *, binning=0, roi=None, d=(), stamp_ns=0):
    """A camera of 50 pixels focal length in 48x64, and 500 in 480x640."""
    scale = size[1] / 64
    f, cx, cy = 50.0 * scale, 32.0 * scale, 24.0 * scale
    message = made(
        "sensor_msgs/msg/CameraInfo", header=a_header(stamp_ns), height=size[0], width=size[1],
        distortion_model="plumb_bob", d=np.array(d, np.float64),
        k=np.array([f, 0, cx, 0, f, cy, 0, 0, 1]),
        p=np.array([f, 0, cx, 0, 0, f, cy, 0, 0, 0, 1, 0]), binning_x=binning, binning_y=binning,
    )  # fmt: skip
    if roi is not None:
        names = ("x_offset", "y_offset", "width", "height")
        for name, value in zip(names, roi, strict=True):
            setattr(message.roi, name, value)
    return message


def tf_message(parent, child, stamp_ns, translation, xyzw=(0, 0, 0, 1)):
    one = made("geometry_msgs/msg/TransformStamped", header=a_header(stamp_ns, parent),
               child_frame_id=child)  # fmt: skip
    for name, value in zip("xyz", translation, strict=True):
        setattr(one.transform.translation, name, float(value))
    for name, value in zip("xyzw", xyzw, strict=True):
        setattr(one.transform.rotation, name, float(value))
    return made("tf2_msgs/msg/TFMessage", transforms=[one])


def video_packets(kind, count, start_ns=1_700_000_000_000_000_007):
    """Grey images, each 40 brighter, as H.264 packets in messages of a type."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = 64, 48, "yuv420p"
    codec.time_base = Fraction(1, 30)
    codec.options = {"tune": "zerolatency", "preset": "ultrafast"}
    packets = []
    for k in range(count):
        image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * k + 40, np.uint8), "bgr24")
        image.pts = k
        packets += codec.encode(image)
    packets += codec.encode(None)
    for k, packet in enumerate(packets):
        header, data = a_header(start_ns + k), np.frombuffer(bytes(packet), np.uint8)
        if kind.startswith("foxglove"):
            yield made(kind, timestamp=header.stamp, frame_id=FRAME, format="h264", data=data)
        else:
            yield made(kind, header=header, width=64, height=48, encoding="libx264", pts=k,
                       data=data)  # fmt: skip
