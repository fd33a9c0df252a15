"""What `/diagnostics` says, for both backends."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ape_stream.stats import Durations, Rate

if TYPE_CHECKING:
    from ape_stream.stats import RunStats
    from ape_stream.types import FrameResult

__all__ = ["Health", "ResultMeter", "run_values"]


@dataclass(frozen=True, slots=True)
class Health:
    """How something is."""

    level: Literal["OK", "WARN", "ERROR", "STALE"]
    """As DiagnosticStatus names it."""
    message: str
    """One line."""


def _told(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def run_values(stats: RunStats) -> dict[str, str]:
    """The numbers of a run with one stream, by name; times in milliseconds, rates per second."""
    values: dict[str, str] = {}
    for stream in stats.streams.values():
        values |= {
            "captured": str(stream.captured),
            "published": str(stream.published),
            "dropped": str(sum(stream.dropped.values())),
            "capture_hz": _told(stream.capture_hz),
            "publish_hz": _told(stream.publish_hz),
            "age_ms_p50": _told(stream.age_ms_p50),
            "age_ms_p95": _told(stream.age_ms_p95),
        }
        values |= {f"dropped_{cause}": str(count) for cause, count in stream.dropped.items()}
    for name in ("perceive", "track", "publish"):
        if name in stats.stages:
            values[f"{name}_ms_p50"] = _told(stats.stages[name].ms_p50)
            values[f"{name}_ms_p95"] = _told(stats.stages[name].ms_p95)
    return values


class ResultMeter:
    """The same numbers for a sink, which sees results only and not the run they come from."""

    def __init__(self) -> None:
        self._published = self._dropped = 0
        self._next: dict[str, int] = {}
        self._rate = Rate()
        self._ages = Durations()
        self._stages: dict[str, Durations] = {}
        self._prompts = ""

    def see(self, result: FrameResult) -> None:
        """Count a result that was published just now."""
        frame, now_ns = result.frame, time.monotonic_ns()
        self._dropped += max(0, frame.index - self._next.get(frame.stream, frame.index))
        self._next[frame.stream] = frame.index + 1
        self._published += 1
        self._rate.tick(now_ns / 1e9)
        self._ages.add((now_ns - frame.captured_ns) / 1e9)
        for stage, spent_ms in result.timings.items():
            self._stages.setdefault(stage, Durations()).add(spent_ms / 1e3)
        self._prompts = ", ".join(result.prompts.texts)

    def values(self) -> dict[str, Any]:
        """The numbers by name."""
        values = {
            "prompts": self._prompts,
            "published": str(self._published),
            "dropped": str(self._dropped),
            "publish_hz": _told(self._rate.hz(time.monotonic())),
            "age_ms_p50": _told(self._ages.ms(0.5)),
            "age_ms_p95": _told(self._ages.ms(0.95)),
        }
        for stage, times in self._stages.items():
            values[f"{stage}_ms_p50"] = _told(times.ms(0.5))
            values[f"{stage}_ms_p95"] = _told(times.ms(0.95))
        return values
