import contextlib
import urllib.request

import pytest

from ape_nodes.metrics.collector import exposition, registry_of
from ape_nodes.metrics.sink import MetricsSink
from ape_stream.cli.plan import Options, from_options
from ape_stream.errors import ConfigError
from ape_stream.pipeline import Pipeline
from ape_stream.stats import DeviceMemory, RunStats, StageStats, StreamStats
from ape_stream.testing import ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet


def test_the_numbers_of_a_run_are_those_of_its_statistics():
    stream = StreamStats(
        captured=9, published=5, dropped={"overtaken": 3}, in_flight={"waiting": 1},
        capture_hz=30.0, publish_hz=10.0, age_ms_p50=20.0, age_ms_p95=50.0, restarts=1,
    )  # fmt: skip
    stage = StageStats(calls=5, busy_s=2.0, starved_s=1.0, blocked_s=0.5, ms_p50=40.0, ms_p95=None)
    memory = DeviceMemory("cuda", 1, 2, 3)
    stats = RunStats(4.0, {'a "b"': stream}, {"perceive": stage}, 7, memory)
    lines = exposition(registry_of(lambda: stats)).decode().splitlines()
    for line in (
        "ape_stream_run_seconds 4.0",
        r'ape_stream_frames_captured_total{stream="a \"b\""} 9.0',
        r'ape_stream_frames_dropped_total{cause="overtaken",stream="a \"b\""} 3.0',
        r'ape_stream_frames_in_flight{stage="waiting",stream="a \"b\""} 1.0',
        r'ape_stream_age_seconds{quantile="0.95",stream="a \"b\""} 0.05',
        'ape_stream_stage_seconds_total{stage="perceive",state="starved"} 1.0',
        'ape_stream_stage_call_seconds{quantile="0.5",stage="perceive"} 0.04',
        "ape_stream_resident_bytes 7.0",
        'ape_stream_device_bytes{device="cuda",kind="reserved"} 2.0',
    ):
        assert line in lines


def test_any_run_serves_its_numbers():
    sink = MetricsSink("metrics:127.0.0.1:0")
    run = Pipeline([ListSource(frames(5))], OraclePerceiver(), PromptSet.of("cat"), sinks=[sink])
    with run, contextlib.closing(iter(run)) as results:
        next(results)
        next(results)
        with urllib.request.urlopen(sink.address, timeout=5) as answer:
            text = answer.read().decode()
    assert 'ape_stream_frames_published_total{stream="0"} 2.0' in text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(sink.address, timeout=5)


def test_an_address_in_use_is_refused_before_the_run():
    first = MetricsSink("metrics:127.0.0.1:0")
    first.watch(RunStats)
    with first:
        second = MetricsSink(first.address.removeprefix("http://").removesuffix("/metrics"))
        second.watch(lambda: RunStats(0.0))
        with pytest.raises(ConfigError, match="cannot serve metrics"), second:
            pass


@pytest.mark.parametrize(
    "spec", ["metrics:0.0.0.0:9464", "metrics:host:9464", "metrics:127.0.0.1:x"]
)
def test_only_this_machine_reads_them_unless_that_is_said(spec):
    with pytest.raises(ConfigError):
        MetricsSink(spec)
    if not spec.endswith("x"):
        MetricsSink(spec, public=True)


def test_the_option_is_an_output_of_any_run():
    given = Options(
        sources=["synthetic://1"], prompt=["cat"], output=["window"], metrics="[::1]:9000"
    )
    assert [output.output for output in from_options(given).outputs] == [
        "window",
        "metrics:[::1]:9000",
    ]
