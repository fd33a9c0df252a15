"""Numbers mean what their names say."""

import json
import mmap
import time

import pytest

from ape_stream import stats
from ape_stream.pipeline import Pipeline
from ape_stream.stats import (
    DeviceMemory,
    Durations,
    Rate,
    RunStats,
    StageMeter,
    StreamCounters,
    resident_bytes,
)
from ape_stream.testing import CollectSink, ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet


def test_quantiles_are_milliseconds_of_what_was_added():
    durations = Durations()
    assert durations.ms(0.5) is None
    for ms in (5, 1, 3, 2, 4):
        durations.add(ms / 1e3)
    assert [durations.ms(q) for q in (0, 0.5, 1)] == pytest.approx([1, 3, 5])
    assert durations.total_s == pytest.approx(0.015)


def test_only_the_last_512_durations_count_for_quantiles():
    durations = Durations()
    for _ in range(512):
        durations.add(9.0)
    for _ in range(512):
        durations.add(1.0)
    assert durations.ms(1.0) == 1000
    assert durations.count == 1024


def test_rate_counts_the_last_five_seconds():
    rate = Rate()
    assert rate.hz(0.0) == 0
    for tick in range(101):
        rate.tick(tick / 10)  # 10 Hz for 10 s
    assert rate.hz(10.0) == pytest.approx(10, rel=0.05)
    assert rate.hz(12.5) == pytest.approx(5, rel=0.05)
    assert rate.hz(16.0) == 0


def test_rate_is_right_before_the_window_is_full():
    rate = Rate()
    for tick in range(21):
        rate.tick(tick / 20)
    assert rate.hz(1.0) == pytest.approx(21)


def test_counters_counts_ages_from_capture():
    counters = StreamCounters()
    counters.capture()
    counters.publish(time.monotonic_ns() - 40_000_000)
    snapshot = counters.snapshot(waiting=0)
    assert 40 <= snapshot.age_ms_p50 < 1000
    assert (snapshot.captured, snapshot.published) == (1, 1)


def test_a_snapshot_does_not_change_afterwards():
    counters = StreamCounters()
    counters.drop("overtaken")
    before = counters.snapshot(waiting=0)
    counters.drop("overtaken")
    counters.enter("ready")
    assert before.dropped == {"overtaken": 1}
    assert before.in_flight["ready"] == 0


def test_totals_are_sums_over_streams_and_json():
    a, b = StreamCounters(), StreamCounters()
    for _ in range(3):
        a.capture()
    a.drop("stopped")
    b.capture()
    b.publish(time.monotonic_ns())
    stats = RunStats(1.0, {"a": a.snapshot(2), "b": b.snapshot(0)}, {"x": StageMeter().snapshot()})
    assert (stats.captured, stats.published, stats.dropped, stats.in_flight) == (4, 1, 1, 2)
    assert json.loads(json.dumps(stats.as_dict()))["streams"]["a"]["dropped"] == {"stopped": 1}


@pytest.mark.skipif(not stats._STATM.exists(), reason="only Linux has /proc")
def test_resident_memory_grows_with_what_is_kept():
    before = resident_bytes()
    kept = mmap.mmap(-1, 64 << 20)
    kept.write(b"x" * len(kept))
    assert 60 << 20 < resident_bytes() - before < 200 << 20


def test_where_the_system_does_not_report_it_there_is_no_number(monkeypatch, tmp_path):
    monkeypatch.setattr(stats, "_STATM", tmp_path / "statm")
    assert resident_bytes() is None


class OnGpu(OraclePerceiver):
    def device_memory(self):
        return DeviceMemory("cuda:1", len(self.batches), 2, 3)


class Watching(CollectSink):
    seen = None

    def watch(self, stats):
        assert not self.opened
        self.stats = stats

    def write(self, result):
        self.seen = self.stats()
        super().write(result)


def test_the_devices_memory_is_reported_and_a_sink_may_watch_the_run():
    sink = Watching()
    run = Pipeline([ListSource(frames(3))], OnGpu(), PromptSet.of("cat"), sinks=[sink])
    assert sum(1 for _ in run) == 3
    snapshot = run.stats()
    assert snapshot.device_memory == DeviceMemory("cuda:1", 3, 2, 3)
    assert json.loads(json.dumps(snapshot.as_dict()))["device_memory"]["allocated"] == 3
    assert (sink.seen.published, sink.seen.in_flight) == (2, 1)  # the third was in flight


def test_a_perceiver_without_a_device_reports_none():
    run = Pipeline([ListSource(frames(1))], OraclePerceiver(), PromptSet.of("cat"))
    assert run.stats().device_memory is None
