"""The values of /diagnostics."""

import time

import pytest

from ape_nodes.ros2.diagnostics import Health, run_values
from ape_nodes.ros2.types import plain_encoder, type_store
from ape_stream.pipeline import Pipeline
from ape_stream.stats import DeviceMemory, RunStats
from ape_stream.testing import ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet


def test_the_values_are_those_of_the_run():
    run = Pipeline([ListSource(frames(5))], OraclePerceiver(delay_s=0.01), PromptSet.of("cat"))
    assert sum(1 for _ in run) == 5
    values = run_values(run.stats())
    assert (values["captured"], values["published"], values["dropped"]) == ("5", "5", "0")
    assert float(values["perceive_ms_p50"]) >= 10
    assert float(values["age_ms_p95"]) >= float(values["age_ms_p50"]) >= 10


def test_each_of_several_streams_has_its_own_values():
    sources = [ListSource(frames(k, stream=name), name=name) for name, k in (("a", 2), ("b", 3))]
    run = Pipeline(sources, OraclePerceiver(), PromptSet.of("cat"))
    assert sum(1 for _ in run) == 5
    values = run_values(run.stats())
    assert (values["a/published"], values["b/published"]) == ("2", "3")
    assert "published" not in values


def test_memory_is_in_mib():
    gpu = DeviceMemory("cuda:0", 3 << 20, 8 << 20, 80 << 30)
    values = run_values(RunStats(1.0, resident_bytes=200 << 20, device_memory=gpu))
    assert values["process_mib"] == "200"
    assert (values["device"], values["device_total_mib"]) == ("cuda:0", "81920")
    assert (values["device_allocated_mib"], values["device_reserved_mib"]) == ("3", "8")
    on_a_cpu = run_values(RunStats(1.0))
    assert not [name for name in on_a_cpu if "mib" in name or "device" in name]


@pytest.mark.parametrize("level", ["OK", "WARN", "ERROR", "STALE"])
def test_the_message_reads_back(level):
    store, stamp_ns = type_store(), time.time_ns()
    made = plain_encoder(store).diagnostics(stamp_ns, "/ape", Health(level, "well"), {"a": 1.5})
    name = "diagnostic_msgs/msg/DiagnosticArray"
    read = store.deserialize_cdr(store.serialize_cdr(made, name), name)
    (status,) = read.status
    assert (status.name, status.message, status.values[0].value) == ("/ape", "well", "1.5")
    assert status.level == ["OK", "WARN", "ERROR", "STALE"].index(level)
    assert read.header.stamp.sec * 10**9 + read.header.stamp.nanosec == stamp_ns
