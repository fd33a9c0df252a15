"""The statistics of a run as Prometheus metrics, named `ape_stream_*`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ape_stream.stats import RunStats

__all__ = ["CONTENT_TYPE", "Metric", "RunCollector", "exposition", "registry_of"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Metric = CounterMetricFamily | GaugeMetricFamily


class RunCollector(Collector):
    """Reads the statistics whenever a scrape asks for them; nothing is counted twice.

    Args:
        stats: Returns the run's statistics.
        more: Returns further metrics.
    """

    def __init__(
        self, stats: Callable[[], RunStats], more: Callable[[], Iterable[Metric]] = tuple
    ) -> None:
        self._stats = stats
        self._more = more

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the run."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All families at this moment."""
        stats = self._stats()
        yield GaugeMetricFamily(
            "ape_stream_run_seconds", "Seconds since frames began to flow.", stats.elapsed_s
        )
        yield from _streams(stats)
        yield from _stages(stats)
        yield from _memory(stats)
        yield from self._more()


def _streams(stats: RunStats) -> Iterable[Metric]:
    table: list[tuple[type[Any], str, str, str]] = [
        (CounterMetricFamily, "captured", "frames_captured", "Frames that the source delivered."),
        (CounterMetricFamily, "published", "frames_published", "Frames whose result went out."),
        (CounterMetricFamily, "restarts", "restarts", "How often the stream's clock stepped back."),
        (GaugeMetricFamily, "capture_hz", "capture_hz", "Frames a second from the source."),
        (GaugeMetricFamily, "publish_hz", "publish_hz", "Results a second."),
    ]
    for kind, attribute, name, text in table:
        family = kind(f"ape_stream_{name}", text, labels=["stream"])
        for stream, values in stats.streams.items():
            family.add_metric([stream], getattr(values, attribute))
        yield family
    dropped = CounterMetricFamily(
        "ape_stream_frames_dropped", "Frames that were dropped.", labels=["stream", "cause"]
    )
    waiting = GaugeMetricFamily(
        "ape_stream_frames_in_flight", "Frames in a stage.", labels=["stream", "stage"]
    )
    age = GaugeMetricFamily(
        "ape_stream_age_seconds",
        "Capture to the end of the last output, of the last 512 frames.",
        labels=["stream", "quantile"],
    )
    for stream, values in stats.streams.items():
        for cause, count in values.dropped.items():
            dropped.add_metric([stream, cause], count)
        for stage, count in values.in_flight.items():
            waiting.add_metric([stream, stage], count)
        _add_quantiles(age, stream, values.age_ms_p50, values.age_ms_p95)
    yield from (dropped, waiting, age)


def _stages(stats: RunStats) -> Iterable[Metric]:
    calls = CounterMetricFamily("ape_stream_stage_calls", "Calls of a stage.", labels=["stage"])
    spent = CounterMetricFamily(
        "ape_stream_stage_seconds",
        "Seconds of a stage: busy, starved (no input) or blocked (no room after it).",
        labels=["stage", "state"],
    )
    duration = GaugeMetricFamily(
        "ape_stream_stage_call_seconds",
        "A call of a stage, of the last 512.",
        labels=["stage", "quantile"],
    )
    for stage, values in stats.stages.items():
        calls.add_metric([stage], values.calls)
        for state in ("busy", "starved", "blocked"):
            spent.add_metric([stage, state], getattr(values, f"{state}_s"))
        _add_quantiles(duration, stage, values.ms_p50, values.ms_p95)
    yield from (calls, spent, duration)


def _memory(stats: RunStats) -> Iterable[Metric]:
    if stats.resident_bytes is not None:
        yield GaugeMetricFamily(
            "ape_stream_resident_bytes", "Memory of the process in RAM.", stats.resident_bytes
        )
    device = stats.device_memory
    if device is not None:
        family = GaugeMetricFamily(
            "ape_stream_device_bytes", "Memory of the model's device.", labels=["device", "kind"]
        )
        for kind in ("allocated", "reserved", "total"):
            family.add_metric([device.device, kind], getattr(device, kind))
        yield family


def _add_quantiles(
    family: GaugeMetricFamily, name: str, p50_ms: float | None, p95_ms: float | None
) -> None:
    for quantile, ms in (("0.5", p50_ms), ("0.95", p95_ms)):
        if ms is not None:
            family.add_metric([name, quantile], ms / 1e3)


def registry_of(
    stats: Callable[[], RunStats], more: Callable[[], Iterable[Metric]] = tuple
) -> CollectorRegistry:
    """A registry with these metrics alone."""
    registry = CollectorRegistry()
    registry.register(RunCollector(stats, more))
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """What a scrape gets: Prometheus' text form 0.0.4."""
    return generate_latest(registry)
