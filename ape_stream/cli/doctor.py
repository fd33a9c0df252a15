"""What is installed here and what follows from it, without importing anything heavy."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

from ape_stream.errors import PluginError
from ape_stream.plugins import find, load

__all__ = ["examine"]


class _Library(NamedTuple):
    """A library that something here needs."""

    name: str
    module: str
    purpose: str
    extra: str = ""
    """The extra that installs it; empty for what is always installed."""
    distributions: tuple[str, ...] = ()
    """What may bring it, where that is not its name."""

    def finding(self) -> str:
        """Its version, or how to get it."""
        # Found, not imported: torch alone takes seconds, and a broken library would end the report.
        if find_spec(self.module) is not None:
            return f"{_version(self.distributions or (self.name,)) or 'present'} ({self.purpose})"
        remedy = f": pip install 'ape-stream[{self.extra}]'" if self.extra else ""
        return f"not installed ({self.purpose}){remedy}"


_LIBRARIES = (
    _Library("numpy", "numpy", "needed"),
    _Library("PyAV", "av", "video files and network streams", "", ("av",)),
    _Library(
        "OpenCV",
        "cv2",
        "cameras, drawing, windows",
        "",
        ("opencv-python", "opencv-python-headless"),
    ),
    _Library("supervision", "supervision", "result.detections, overlays"),
    _Library("torch", "torch", "the APE models"),
    _Library("cuda-bindings", "cuda", "kernels on NVIDIA GPUs", "cuda13"),
    _Library(
        "CuPy", "cupy", "starts these kernels", "cuda13", ("cupy-cuda13x", "cupy-cuda12x", "cupy")
    ),
    _Library("numba", "numba", "kernels on the CPU without a C++ compiler", "numba"),
    _Library("aiohttp", "aiohttp", "the live page", "web"),
    _Library("prometheus_client", "prometheus_client", "--metrics, the live page", "metrics"),
    _Library("paho-mqtt", "paho", "events of the live page over MQTT", "mqtt"),
    _Library("pyzmq", "zmq", "zmq: outputs and control", "zmq"),
    _Library("rclpy", "rclpy", "ROS 2 nodes; a ROS 2 installation has it", "rclpy"),
    _Library("cyclonedds", "cyclonedds", "ROS 2 topics without a ROS installation", "dds"),
    _Library("rosbags", "rosbags", "bags, and ROS 2 messages without ROS", "bags"),
    _Library("pyarrow", "pyarrow", "index and ask", "index"),
    _Library("threadpoolctl", "threadpoolctl", "index", "index"),
    _Library("rerun-sdk", "rerun", "rerun: and .rrd outputs", "rerun"),
    _Library("ray", "ray", "annotate --engine ray", "ray"),
    _Library("trackers", "trackers", "other trackers than iou", "trackers"),
    _Library("transformers", "transformers", "OWLv2, Grounding DINO, SAM 3", "transformers"),
    _Library("ultralytics", "ultralytics", "YOLOE and YOLO-World", "ultralytics"),
    _Library("faster-coco-eval", "faster_coco_eval", "the paper's benchmarks", "eval"),
    _Library("sentence-transformers", "sentence_transformers", "train-text", "distil"),
    _Library("huggingface_hub", "huggingface_hub", "models pull", "hub"),
)


def examine() -> list[tuple[str, str]]:
    """(what, finding) for everything that decides what can run here, plugins' lines included."""
    lines = [
        ("ape-stream", _version(("ape-stream",)) or "not installed, run from a checkout"),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"),
        ("display", _display()),
    ]
    lines += [(library.name, library.finding()) for library in _LIBRARIES]
    for topic in find("doctor"):
        lines += _ask(topic)
    return lines


def _display() -> str:
    shown = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    return shown or "none: the window output cannot be used"


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _ask(topic: str) -> list[tuple[str, str]]:
    """A plugin's own lines; one that breaks is a finding too."""
    try:
        return [(str(what), str(finding)) for what, finding in load("doctor", topic)()]
    except PluginError as error:
        return [(topic, str(error))]
    except Exception as error:  # noqa: BLE001 (a doctor that dies of one illness helps nobody)
        return [(topic, f"cannot say: {type(error).__name__}: {error}")]
