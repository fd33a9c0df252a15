"""The numbers of /diagnostics."""

import time

import pytest
from wire_samples import a_result

from ape_nodes.ros_health import Health, ResultMeter, run_values
from ape_nodes.ros_types import plain_encoder, type_store
from ape_stream.pipeline import Pipeline
from ape_stream.testing import ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet


def test_a_run_tells_its_numbers():
    run = Pipeline([ListSource(frames(5))], OraclePerceiver(delay_s=0.01), PromptSet.of("cat"))
    assert sum(1 for _ in run) == 5
    values = run_values(run.stats())
    assert (values["captured"], values["published"], values["dropped"]) == ("5", "5", "0")
    assert float(values["perceive_ms_p50"]) >= 10
    assert float(values["age_ms_p95"]) >= float(values["age_ms_p50"]) >= 10


def test_a_sink_counts_holes_as_drops():
    meter = ResultMeter()
    before = meter.values()
    assert (before["published"], before["age_ms_p50"]) == ("0", "")
    for index in (3, 4, 9):
        meter.see(a_result(index))
    values = meter.values()
    assert (values["published"], values["dropped"]) == ("3", "4")
    assert values["prompts"]
    assert float(values["age_ms_p95"]) >= 0


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
