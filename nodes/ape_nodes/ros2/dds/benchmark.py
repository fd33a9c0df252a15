"""`ape-stream bench dds`: 1080p images as ROS 2 topics from one process to another, without ROS.

The camera is this process, the reader is another one with a `ros2://` source, both on loopback in a
domain of their own. The time runs from before the message is made to the frame that the source
yields. Every pixel is compared with what was sent; that is left out of the reader's CPU time.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_nodes.benchmarks import SIZE, camera_image, percentiles, report
from ape_nodes.ros2.dds.backend import DdsNode
from ape_nodes.ros2.images import from_compressed, to_jpeg
from ape_nodes.ros2.messages import RosFrame
from ape_nodes.ros2.source import Ros2Source
from ape_nodes.ros2.topics import TopicSpec
from ape_stream.closing import Closing
from ape_stream.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

__all__ = ["Line", "dds", "measure"]

_READY, _END = "ready", "end"
"""frame_id of the images that are not measured: until the reader is ready, and at the end."""
_SIGNAL_HZ: Final = 10.0
_TIMEOUT_S: Final = 60.0
_IMAGES: Final = 4


@dataclass(frozen=True, slots=True)
class Line:
    """Measurements of one form."""

    form: str
    """What is sent, and how."""
    message_bytes: int
    """Bytes of the largest image, without the header."""
    sent: int
    """Images that were published."""
    sent_hz: float
    """The same per second: below the requested rate where this machine is too slow."""
    received: int
    """Images that came."""
    lost: int
    """Images that did not."""
    changed: int
    """Images that came, but not as they were sent."""
    ms_p50: float | None
    """Milliseconds from before the message is made to the frame, median; None if none came."""
    ms_p95: float | None
    """The same, 95th percentile."""
    ms_p99: float | None
    """The same, 99th percentile."""
    writer_cpu_ms: float
    """CPU time of the writing process per image, all threads."""
    reader_cpu_ms: float | None
    """The same of the reading process; None if less than two images came."""


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to send an image."""

    name: str
    topic: TopicSpec

    @property
    def is_jpeg(self) -> bool:
        return self.topic.name.endswith("/compressed")

    def as_received(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What a reader must receive of this image."""
        return from_compressed(to_jpeg(pixels)) if self.is_jpeg else pixels


def _form(name: str, topic: str, kind: str, *, reliable: bool) -> _Form:
    return _Form(name, TopicSpec(topic, f"sensor_msgs/msg/{kind}", reliable, False, 5, False, ""))


_FORMS: Final = (
    _form("bgr8, best effort", "/bench/raw", "Image", reliable=False),
    _form("bgr8, reliable", "/bench/reliable", "Image", reliable=True),
    _form("jpeg, best effort", "/bench/raw/compressed", "CompressedImage", reliable=False),
)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What both processes are given."""

    form: _Form
    domain_id: int
    rate: float
    count: int
    size: tuple[int, int]

    def images(self) -> list[NDArray[np.uint8]]:
        """The images that are sent in turns; equal in both processes."""
        rng = np.random.default_rng(1)
        return [camera_image(rng, self.size) for _ in range(_IMAGES)]


def _due(rate: float, count: int) -> Iterator[int]:
    """Numbers from 0, each at its time."""
    start = time.monotonic()
    for number in range(count):
        # By the start, not by the last one: a late image does not shift the others.
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        yield number


class _Camera(Closing):
    """The writing side."""

    def __init__(self, plan: _Plan) -> None:
        self._form = plan.form
        self._images = plan.images()
        self._node = DdsNode("ape_bench_camera", domain_id=plan.domain_id)
        self._writer = self._node.writer(plan.form.topic.name, plan.form.topic)
        self._encoder = self._node.encoder("mono16")
        self.largest = 0

    def close(self, _error: BaseException | None = None, /) -> None:
        self._node.close()

    def send(self, number: int, frame_id: str) -> None:
        """Publish an image."""
        pixels, stamp_ns = self._images[number % _IMAGES], time.monotonic_ns()
        frame = RosFrame(pixels, number, 0.0, stamp_ns=stamp_ns, frame_id=frame_id)
        make = self._encoder.compressed if self._form.is_jpeg else self._encoder.image
        message = make(self._encoder.header(frame), pixels)
        self._writer.write(message)
        self.largest = max(self.largest, len(message.data))

    def signal(self, frame_id: str, reader: Connection[Any, Any]) -> Any:
        """Send this frame_id until the reader has seen it; returns the reader's answer.

        Raises:
            SourceError: the reader did not see it in time, or its process ended.
        """
        try:
            for _ in _due(_SIGNAL_HZ, round(_SIGNAL_HZ * _TIMEOUT_S)):
                self.send(0, frame_id)
                if reader.poll():
                    return reader.recv()
        except EOFError as error:
            raise SourceError("the reading process ended early") from error
        raise SourceError(f"the reading process saw no image for {_TIMEOUT_S:g} s")


@dataclass(slots=True)
class _Received:
    """What the reading process reports."""

    ages_ms: list[float] = field(default_factory=list)
    changed: int = 0
    cpu_s: float = 0.0
    """From the first image to the last, without comparing."""


def _read(plan: _Plan, writer: Connection[Any, Any]) -> None:
    """The reading process: reports that it is ready, and at the end what it received."""
    expected = [plan.form.as_received(pixels) for pixels in plan.images()]
    with Ros2Source(
        f"ros2:/{plan.form.topic.name}",
        reliable=plan.form.topic.reliable,
        domain_id=plan.domain_id,
        timeout_s=_TIMEOUT_S,
        backend="dds",
    ) as source:
        frames = iter(source)
        # DDS discovery takes a while: images before it are not meant to arrive.
        next(frame for frame in frames if frame.frame_id == _READY)
        writer.send(_READY)
        writer.send(_count(frames, expected))


def _count(frames: Iterator[RosFrame], expected: list[NDArray[np.uint8]]) -> _Received:
    received = _Received()
    began_s = compared_s = 0.0
    for frame in frames:
        now_ns, now_s = time.monotonic_ns(), time.process_time()
        if frame.frame_id == _END:
            break
        if frame.frame_id == _READY:
            continue
        began_s = began_s or now_s
        received.cpu_s = now_s - began_s - compared_s
        received.ages_ms.append((now_ns - frame.stamp_ns) / 1e6)
        start_s = time.thread_time()
        received.changed += not np.array_equal(frame.image, expected[int(frame.frame_id) % _IMAGES])
        compared_s += time.thread_time() - start_s
    return received


def _run(plan: _Plan) -> Line:
    spawn = multiprocessing.get_context("spawn")  # a DDS process must not be forked
    here, there = spawn.Pipe()
    process = spawn.Process(target=_read, args=(plan, there), daemon=True)
    process.start()
    there.close()  # so that the end of the other process is noticed here
    try:
        with _Camera(plan) as camera:
            # CPU time is that of all threads, so of Cyclone DDS's own too.
            camera.signal(_READY, here)
            start_s, cpu_s = time.monotonic(), time.process_time()
            for number in _due(plan.rate, plan.count):
                camera.send(number, str(number))
            spent_s, cpu_s = time.monotonic() - start_s, time.process_time() - cpu_s
            time.sleep(1 / plan.rate)  # the last image may still be on its way
            received = camera.signal(_END, here)
    finally:
        process.kill()
        process.join()
        here.close()
    return _line(plan, received, camera.largest, spent_s, cpu_s)


def _line(plan: _Plan, received: _Received, largest: int, spent_s: float, cpu_s: float) -> Line:
    count = len(received.ages_ms)
    ages_ms = percentiles(received.ages_ms) if count else (None, None, None)
    return Line(
        form=plan.form.name,
        message_bytes=largest,
        sent=plan.count,
        sent_hz=(plan.count - 1) / spent_s if plan.count > 1 else 0.0,
        received=count,
        lost=plan.count - count,
        changed=received.changed,
        ms_p50=ages_ms[0],
        ms_p95=ages_ms[1],
        ms_p99=ages_ms[2],
        writer_cpu_ms=1e3 * cpu_s / plan.count,
        reader_cpu_ms=1e3 * received.cpu_s / (count - 1) if count > 1 else None,
    )


def measure(rate: float, seconds: float, size: tuple[int, int] = SIZE) -> Iterator[Line]:
    """Send every form for some seconds, one after the other; yields each when it is measured.

    Args:
        rate: Images per second.
        seconds: How long each.
        size: Height and width in pixels.

    Raises:
        SourceError: the reading process saw nothing.
    """
    os.environ["ROS_LOCALHOST_ONLY"] = "1"  # also for the other process
    domain_id = random.randint(1, 100)  # noqa: S311 (to avoid others, not a secret)
    count = max(1, round(rate * seconds))
    for form in _FORMS:
        yield _run(_Plan(form, domain_id, rate, count, size))


def dds(*, rate: float, seconds: float, as_json: bool) -> None:
    """1080p images over ROS 2 topics between two processes: loss, latency, CPU time per image."""
    report(measure(rate, seconds), _COLUMNS, as_json=as_json)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


_COLUMNS: Final[dict[str, Callable[[Line], str]]] = {
    "form": lambda line: line.form,
    "bytes": lambda line: f"{line.message_bytes:,}",
    "sent": lambda line: str(line.sent),
    "Hz": lambda line: _number(line.sent_hz),
    "received": lambda line: str(line.received),
    "lost": lambda line: str(line.lost),
    "changed": lambda line: str(line.changed),
    "p50 ms": lambda line: _number(line.ms_p50),
    "p95 ms": lambda line: _number(line.ms_p95),
    "p99 ms": lambda line: _number(line.ms_p99),
    "writer CPU ms": lambda line: _number(line.writer_cpu_ms),
    "reader CPU ms": lambda line: _number(line.reader_cpu_ms),
}
