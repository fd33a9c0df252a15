"""What is installed here and what follows from it, without importing anything heavy."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from ape_stream.errors import PluginError
from ape_stream.plugins import find, load

__all__ = ["examine"]

_LIBRARIES = {
    # what: (import name, distributions that may bring it, what it is for)
    "numpy": ("numpy", ("numpy",), "needed"),
    "PyAV": ("av", ("av",), "video files and network streams"),
    "OpenCV": ("cv2", ("opencv-python", "opencv-python-headless"), "cameras, drawing, windows"),
    "supervision": ("supervision", ("supervision",), "result.detections, overlays"),
    "torch": ("torch", ("torch",), "the APE models"),
    "cuda-bindings": ("cuda", ("cuda-bindings",), "kernels on NVIDIA GPUs"),
    "CuPy": ("cupy", ("cupy-cuda13x", "cupy-cuda12x", "cupy"), "starts these kernels"),
    "numba": ("numba", ("numba",), "faster kernels on the CPU"),
    "pyzmq": ("zmq", ("pyzmq",), "zmq: outputs and control"),
    "rclpy": ("rclpy", ("rclpy",), "ROS 2 nodes, with a ROS installation"),
    "cyclonedds": ("cyclonedds", ("cyclonedds",), "ROS 2 topics without a ROS installation"),
    "rosbags": ("rosbags", ("rosbags",), "bags, and ROS 2 messages without ROS"),
    "trackers": ("trackers", ("trackers",), "other trackers than iou"),
    "huggingface_hub": ("huggingface_hub", ("huggingface_hub",), "models pull"),
}


def examine() -> list[tuple[str, str]]:
    """(what, finding) for everything that decides what can run here, plugins' lines included."""
    lines = [
        ("ape-stream", _version(("ape-stream",)) or "not installed, run from a checkout"),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"),
        ("display", _display()),
    ]
    lines += [(what, _library(*about)) for what, about in _LIBRARIES.items()]
    for topic in find("doctor"):
        lines += _ask(topic)
    return lines


def _display() -> str:
    shown = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    return shown or "none: the window output cannot be used"


def _library(module: str, distributions: tuple[str, ...], purpose: str) -> str:
    # Found, not imported: torch alone takes seconds, and a broken library would end the report.
    if find_spec(module) is None:
        return f"not installed ({purpose})"
    return f"{_version(distributions) or 'present'} ({purpose})"


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
