"""Statistics of a run: rates, waits, ages, and drops by cause, each with its unit.

Snapshots (`RunStats`) are plain frozen values of one moment. They add up, exactly and at any
moment, per stream: captured = published + dropped by every cause + in flight.
"""

from __future__ import annotations

import mmap
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FLIGHT_STAGES",
    "DeviceMemory",
    "Durations",
    "Rate",
    "RunStats",
    "StageMeter",
    "StageStats",
    "StreamCounters",
    "StreamStats",
    "resident_bytes",
]

FLIGHT_STAGES = ("waiting", "perceiving", "ready", "publishing")
"""Stages of a frame in flight: before the model, in it, before the sinks, in them."""

_STATM = Path("/proc/self/statm")
# Long enough for a steady number at 1 frame/s, short enough to show a stall soon.
_RATE_WINDOW_S = 5.0
_REMEMBERED = 512
"""Latest values of which percentiles are taken."""


@dataclass(frozen=True, slots=True)
class StreamStats:
    """One stream at one moment."""

    captured: int
    """Frames that the source delivered."""
    published: int
    """Frames whose result went through every sink and to the caller."""
    dropped: Mapping[str, int]
    """Frames dropped, by cause: overtaken (a newer one came), bad time, stopped, failed."""
    in_flight: Mapping[str, int]
    """Frames not yet published or dropped, by stage (`FLIGHT_STAGES`)."""
    capture_hz: float
    """Frames per second from the source, over the last 5 s."""
    publish_hz: float
    """Results per second, over the last 5 s."""
    age_ms_p50: float | None
    """Milliseconds from capture to the end of the last sink, median of the last 512 frames."""
    age_ms_p95: float | None
    """The same, 95th percentile. A steady rise means that something downstream is too slow."""
    restarts: int = 0
    """How often the stream's clock stepped back; tracks end there."""


@dataclass(frozen=True, slots=True)
class StageStats:
    """One stage at one moment."""

    calls: int
    """How often it worked."""
    busy_s: float
    """Seconds spent working. Close to the run's time: this stage is the bottleneck."""
    starved_s: float
    """Seconds spent waiting for input. Close to the run's time: the stage before is too slow."""
    blocked_s: float
    """Seconds spent waiting to hand over. Close to the run's time: the stage after is too slow."""
    ms_p50: float | None
    """Milliseconds per call, median of the last 512 calls."""
    ms_p95: float | None
    """The same, 95th percentile."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of the device that a model runs on (a GPU) at one moment, in bytes."""

    device: str
    """Its name, such as "cuda" or "cuda:1"."""
    allocated: int
    """What this process keeps there now."""
    reserved: int
    """What this process has taken from the device: `allocated`, and what it keeps for later."""
    total: int
    """What the device has, for all processes."""


@dataclass(frozen=True, slots=True)
class RunStats:
    """A whole run at one moment."""

    elapsed_s: float
    """Seconds since frames began to flow."""
    streams: Mapping[str, StreamStats] = field(default_factory=dict)
    """By stream name."""
    stages: Mapping[str, StageStats] = field(default_factory=dict)
    """By stage: `source <stream>`, `prepare`, `perceive`, `track`, `publish`."""
    resident_bytes: int | None = None
    """Memory of this process that is in RAM; None where this is not known (not Linux)."""
    device_memory: DeviceMemory | None = None
    """Memory of the model's device; None on a CPU, and where the perceiver does not report it."""

    @property
    def captured(self) -> int:
        """Frames delivered by all sources."""
        return sum(stream.captured for stream in self.streams.values())

    @property
    def published(self) -> int:
        """Results of all streams."""
        return sum(stream.published for stream in self.streams.values())

    @property
    def dropped(self) -> int:
        """Frames dropped by any cause."""
        return sum(sum(stream.dropped.values()) for stream in self.streams.values())

    @property
    def in_flight(self) -> int:
        """Frames not yet published or dropped."""
        return sum(sum(stream.in_flight.values()) for stream in self.streams.values())

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return asdict(self)


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM, in bytes; None where this is not known (not Linux)."""
    try:
        pages = int(_STATM.read_text().split()[1])  # size, resident, ...: proc(5)
    except OSError:
        return None
    return pages * mmap.PAGESIZE


class Durations:
    """The last 512 durations of something, and how long they were altogether."""

    def __init__(self) -> None:
        self.count = 0
        self.total_s = 0.0
        self._last: deque[float] = deque(maxlen=_REMEMBERED)

    def add(self, seconds: float) -> None:
        """Add one duration in seconds."""
        self.count += 1
        self.total_s += seconds
        self._last.append(seconds)

    def ms(self, quantile: float) -> float | None:
        """A quantile (0..1) of the last 512 in milliseconds, or None before the first."""
        if not self._last:
            return None
        ordered = sorted(self._last)
        return 1e3 * ordered[round(quantile * (len(ordered) - 1))]  # the nearest rank


class Rate:
    """Events per second over the last 5 s."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._first: float | None = None

    def tick(self, now: float) -> None:
        """Count an event at `now` (monotonic seconds)."""
        self._first = now if self._first is None else self._first
        self._times.append(now)
        self._forget(now)  # also where nobody asks for the rate

    def hz(self, now: float) -> float:
        """Events per second at `now`; it falls to 0 when nothing comes any more."""
        self._forget(now)
        if self._first is None:
            return 0.0
        # Within the first second two quick frames would read as hundreds per second.
        return len(self._times) / min(_RATE_WINDOW_S, max(now - self._first, 1.0))

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] < now - _RATE_WINDOW_S:
            self._times.popleft()


class StreamCounters:
    """Counts the frames of one stream; every call happens under the pipeline's guard."""

    def __init__(self) -> None:
        self.captured = 0
        self.published = 0
        self.restarts = 0
        self.dropped: dict[str, int] = {}
        # Without "waiting": the stream's channel counts those.
        self.in_flight: dict[str, int] = dict.fromkeys(FLIGHT_STAGES[1:], 0)
        self.age = Durations()
        self._capture_rate = Rate()
        self._publish_rate = Rate()

    def capture(self) -> None:
        """A frame came from the source."""
        self.captured += 1
        self._capture_rate.tick(time.monotonic())

    def enter(self, stage: str) -> None:
        """A frame entered a stage."""
        self.in_flight[stage] += 1

    def leave(self, stage: str) -> None:
        """A frame left a stage."""
        self.in_flight[stage] -= 1

    def drop(self, cause: str) -> None:
        """A frame is lost."""
        self.dropped[cause] = self.dropped.get(cause, 0) + 1

    def publish(self, captured_ns: int) -> None:
        """A result went out, of a frame captured at `captured_ns` (monotonic nanoseconds)."""
        self.published += 1
        self.age.add((time.monotonic_ns() - captured_ns) / 1e9)
        self._publish_rate.tick(time.monotonic())

    def snapshot(self, waiting: int) -> StreamStats:
        """The counts of this moment; `waiting` frames wait before the model."""
        now = time.monotonic()
        return StreamStats(
            captured=self.captured,
            published=self.published,
            dropped=dict(self.dropped),
            in_flight={"waiting": waiting, **self.in_flight},
            capture_hz=self._capture_rate.hz(now),
            publish_hz=self._publish_rate.hz(now),
            age_ms_p50=self.age.ms(0.5),
            age_ms_p95=self.age.ms(0.95),
            restarts=self.restarts,
        )


class StageMeter:
    """Times one stage; every call happens under the pipeline's guard."""

    def __init__(self) -> None:
        self.work = Durations()
        self.starved_s = 0.0
        self.blocked_s = 0.0

    def snapshot(self) -> StageStats:
        """The times of this moment."""
        return StageStats(
            calls=self.work.count,
            busy_s=self.work.total_s,
            starved_s=self.starved_s,
            blocked_s=self.blocked_s,
            ms_p50=self.work.ms(0.5),
            ms_p95=self.work.ms(0.95),
        )
