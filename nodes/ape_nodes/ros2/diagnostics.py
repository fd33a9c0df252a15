"""The values of `/diagnostics`, for both backends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ape_stream.stats import RunStats, StreamStats

__all__ = ["Health", "run_values"]


@dataclass(frozen=True, slots=True)
class Health:
    """The status of a node."""

    level: Literal["OK", "WARN", "ERROR", "STALE"]
    """One of the levels of DiagnosticStatus."""
    message: str
    """One line."""


def run_values(stats: RunStats) -> dict[str, str]:
    """The numbers of a run by name: milliseconds, rates per second, MiB.

    With several streams, those of a stream have its name before them (`front/captured`).
    """
    values: dict[str, str] = {}
    for name, stream in stats.streams.items():
        # One stream, the usual case, keeps short names that dashboards can rely on.
        prefix = f"{name}/" if len(stats.streams) > 1 else ""
        values |= {f"{prefix}{key}": value for key, value in _stream_values(stream).items()}
    for name in ("perceive", "track", "publish"):
        if name in stats.stages:
            values[f"{name}_ms_p50"] = _text(stats.stages[name].ms_p50)
            values[f"{name}_ms_p95"] = _text(stats.stages[name].ms_p95)
    return values | _memory_values(stats)


def _stream_values(stream: StreamStats) -> dict[str, str]:
    values = {
        "captured": str(stream.captured),
        "published": str(stream.published),
        "dropped": str(sum(stream.dropped.values())),
        "capture_hz": _text(stream.capture_hz),
        "publish_hz": _text(stream.publish_hz),
        "age_ms_p50": _text(stream.age_ms_p50),
        "age_ms_p95": _text(stream.age_ms_p95),
    }
    return values | {f"dropped_{cause}": str(count) for cause, count in stream.dropped.items()}


def _memory_values(stats: RunStats) -> dict[str, str]:
    values: dict[str, str] = {}
    if stats.resident_bytes is not None:  # only Linux reports it
        values["process_mib"] = _mib(stats.resident_bytes)
    if (device := stats.device_memory) is not None:
        values |= {
            "device": device.device,
            "device_allocated_mib": _mib(device.allocated),
            "device_reserved_mib": _mib(device.reserved),
            "device_total_mib": _mib(device.total),
        }
    return values


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f}"
