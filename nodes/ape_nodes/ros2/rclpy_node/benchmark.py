"""`ape-stream bench node`: raw 1080p images to `ape_node`, and its detections back.

The node runs in a process of its own, as `ape_node --autostart`; camera and reader are this one.
The images are those of the drawn world, made as messages beforehand: what Python costs a camera is
not measured, as drivers are in C++. An age runs from the image's stamp, which is taken before it is
published, to the detections at the reader. The transport is what the environment says.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import cv2

from ape_nodes.benchmarks import SIZE, percentiles, report
from ape_nodes.ros2.messages import RosFrame
from ape_nodes.ros2.rclpy_node.backend import RclpyNode
from ape_nodes.ros2.topics import DIAGNOSTICS, INPUTS, OUTPUTS
from ape_stream.errors import SourceError
from ape_stream.sources.synthetic import SyntheticSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Line", "bench_node", "measure"]

_WORLD: Final = "synthetic://1500?size=480x270&frames=40&cast={}"
_IMAGES: Final = 10
_TOPIC: Final = "/camera/image_raw"
_NODE: Final = "from ape_nodes.ros2.rclpy_node.main import main; main()"
_TIMEOUT_S: Final = 60.0
_SETTLE_S: Final = 2.0
"""Discovery takes a while, both ways, and `/diagnostics` come once a second."""
_SPECS: Final = {spec.name: spec for spec in (*INPUTS, *OUTPUTS)}


@dataclass(frozen=True, slots=True)
class Line:
    """What one run measured; the node's own figures are None where it published none."""

    sent: int
    """Images that were published."""
    received: int | None
    """Images that the node received."""
    lost: int | None
    """Images that the transport reported as lost."""
    results: int
    """Detections that came back: as many as the model could take."""
    age_ms_p50: float | None
    """From an image's stamp to its detections at the reader, median; None if none came."""
    age_ms_p95: float | None
    """The same, 95th percentile."""
    age_ms_max: float | None
    """The oldest."""
    perceive_ms_p50: float | None
    """The model's time for an image, median."""
    perceive_ms_p95: float | None
    """The same, 95th percentile."""


@dataclass(slots=True)
class _Seen:
    """What the reader has seen of the node."""

    ages_ms: list[float] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    """Of the newest `/diagnostics`."""

    def detections(self, message: Any, now_ns: int) -> None:
        """Take a Detection2DArray."""
        stamp = message.header.stamp
        self.ages_ms.append((now_ns - stamp.sec * 10**9 - stamp.nanosec) / 1e6)

    def diagnostics(self, message: Any) -> None:
        """Take a DiagnosticArray."""
        for status in message.status:
            self.values = {pair.key: pair.value for pair in status.values}

    @property
    def is_answered(self) -> bool:
        """Whether detections came, and diagnostics that count an image."""
        return bool(self.ages_ms and self.number("received") and self.number("perceive_ms_p50"))

    def number(self, name: str) -> float | None:
        """A value of `/diagnostics`; None where the node gave none."""
        text = self.values.get(name, "")
        return float(text) if text else None

    def line(self, sent: int) -> Line:
        """What was measured."""
        received, lost = self.number("received"), self.number("lost")
        ages_ms = self.ages_ms
        p50, p95, _ = percentiles(ages_ms) if ages_ms else (None, None, None)
        return Line(
            sent=sent,
            received=None if received is None else int(received),
            lost=None if lost is None else int(lost),
            results=len(ages_ms),
            age_ms_p50=p50,
            age_ms_p95=p95,
            age_ms_max=max(ages_ms, default=None),
            perceive_ms_p50=self.number("perceive_ms_p50"),
            perceive_ms_p95=self.number("perceive_ms_p95"),
        )


class _Peer:
    """Camera and reader of the node, in one thread: what arrives is read between two images."""

    def __init__(self, images: Sequence[NDArray[Any]]) -> None:
        self.seen = _Seen()
        self._node = RclpyNode("ape_bench")
        self._messages = [self._message(pixels) for pixels in images]
        self._camera = self._node.writer(_TOPIC, _SPECS["image"])
        # A reader's `take` spins for all readers of the node.
        self._detections = self._node.reader("/ape/detections", _SPECS["detections"])
        self._diagnostics = self._node.reader("/diagnostics", DIAGNOSTICS)

    def close(self) -> None:
        self._node.close()

    @property
    def is_read(self) -> bool:
        """Whether the node is subscribed to the camera."""
        return self._camera.readers > 0

    def _message(self, pixels: NDArray[Any]) -> Any:
        encoder = self._node.encoder("mono16")
        header = encoder.header(RosFrame(pixels, 0, 0.0, frame_id="camera"))
        return encoder.image(header, pixels)

    def send(self, number: int) -> None:
        """Publish an image, stamped now."""
        message = self._messages[number % len(self._messages)]
        stamp = message.header.stamp
        stamp.sec, stamp.nanosec = divmod(time.time_ns(), 10**9)
        self._camera.write(message)

    def read_until(self, end_s: float) -> None:
        """Read what comes until this time of the monotonic clock."""
        while (left_s := end_s - time.monotonic()) > 0:
            for message in self._detections.take(left_s):
                self.seen.detections(message, time.time_ns())
            for message in self._diagnostics.take(0.0):
                self.seen.diagnostics(message)


def _images(cast: Sequence[str], size: tuple[int, int]) -> list[NDArray[Any]]:
    """Images of a drawn video, enlarged."""
    with SyntheticSource(_WORLD.format(",".join(cast)), name="camera") as source:
        frames = islice(source, 0, None, 40 // _IMAGES)
        return [cv2.resize(frame.image, (size[1], size[0])) for frame in frames]


def _run(images: Sequence[NDArray[Any]], rate: float, count: int, node: Any) -> Line:
    peer = _Peer(images)
    try:
        for _ in _until(lambda: peer.is_read):
            if node.poll() is not None:
                raise SourceError(f"ape_node ended with exit code {node.returncode}")
            peer.read_until(time.monotonic() + 0.1)
        peer.read_until(time.monotonic() + _SETTLE_S)
        start_s = time.monotonic()
        for number in range(count):
            # By the start, not by the last one: a late image does not shift the others.
            peer.read_until(start_s + number / rate)
            peer.send(number)
        peer.read_until(time.monotonic() + _SETTLE_S)
        # On a starved machine the first result takes longer.
        end_s = time.monotonic() + _TIMEOUT_S
        while not peer.seen.is_answered and time.monotonic() < end_s and node.poll() is None:
            peer.read_until(time.monotonic() + 0.1)
        return peer.seen.line(count)
    finally:
        peer.close()


def _until(done: Callable[[], bool]) -> Iterator[None]:
    """Yield until it is done.

    Raises:
        SourceError: it took too long.
    """
    end_s = time.monotonic() + _TIMEOUT_S
    while not done():
        if time.monotonic() > end_s:
            raise SourceError(f"ape_node did not subscribe to {_TOPIC} within {_TIMEOUT_S:g} s")
        yield


def measure(
    rate: float,
    seconds: float,
    prompts: Sequence[str],
    parameters: Sequence[str] = (),
    size: tuple[int, int] = SIZE,
) -> Line:
    """Send images to a node for some seconds.

    Args:
        rate: Images per second.
        seconds: How long.
        prompts: What the images show, and what the node finds: names of the drawn world.
        parameters: Of the node, as `canvas:=480`.
        size: Height and width in pixels.

    Raises:
        SourceError: the node ended, or did not subscribe.
    """
    images = _images(prompts, size)
    os.environ["ROS_DOMAIN_ID"] = str(random.randint(1, 100))  # noqa: S311 (to avoid others)
    given = [f"prompts:=[{', '.join(map(repr, prompts))}]", *parameters]
    arguments = [part for one in given for part in ("-p", one)]
    remapping = ["--ros-args", "-r", f"image:={_TOPIC}"]
    command = [sys.executable, "-c", _NODE, "--autostart", *remapping, *arguments]
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 (our own)
    try:
        return _run(images, rate, max(1, round(rate * seconds)), node)
    finally:
        node.terminate()
        node.wait()


def bench_node(
    *, rate: float, seconds: float, prompts: Sequence[str], parameters: Sequence[str], as_json: bool
) -> None:
    """Raw 1080p images to `ape_node`: what it loses, and how old its detections are."""
    report([measure(rate, seconds, prompts, parameters)], _COLUMNS, as_json=as_json, first=6)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


_COLUMNS: Final[dict[str, Callable[[Line], str]]] = {
    "sent": lambda line: str(line.sent),
    "received": lambda line: _number(line.received),
    "lost": lambda line: _number(line.lost),
    "results": lambda line: str(line.results),
    "age p50 ms": lambda line: _number(line.age_ms_p50),
    "p95 ms": lambda line: _number(line.age_ms_p95),
    "max ms": lambda line: _number(line.age_ms_max),
    "perceive p50 ms": lambda line: _number(line.perceive_ms_p50),
    "perceive p95 ms": lambda line: _number(line.perceive_ms_p95),
}
