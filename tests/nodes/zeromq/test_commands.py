import json
import signal
import subprocess
import sys
import threading
import time

import pytest
import typer
from typer.testing import CliRunner

from ape_nodes.control import control
from ape_nodes.zeromq import commands
from ape_nodes.zeromq.control import ControlClient, ControlServer
from ape_stream.cli import execute
from ape_stream.errors import ConfigError, TruncatedError
from ape_stream.pipeline import Pipeline
from ape_stream.testing import ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet


def run(*arguments):
    app = typer.Typer()
    for verb in (commands.keys, control, commands.serve):
        app.command()(verb)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_keys_are_made_and_named(tmp_path):
    outcome = run("keys", tmp_path / "keys")
    assert outcome.exit_code == 0
    assert (tmp_path / "keys/server.key_secret").is_file()
    assert "clients/client.key" in outcome.stdout.replace("\n", "")


def test_control_changes_prompts(caplog):
    source = ListSource(frames(10**9), live=True, period_s=0.01)
    pipeline = Pipeline([source], OraclePerceiver(), PromptSet.of("cat"))
    with pipeline, ControlServer("tcp://127.0.0.1:*", pipeline) as server:
        looping = threading.Thread(target=lambda: list(pipeline))
        looping.start()
        new = run("control", server.address, "set", "--prompt", "dog, bird", "--prompt", "fish")
        old = run("control", server.address, "set", "--prompts", "dog, bird")
        pipeline.stop()
        looping.join()
    assert texts(new) == ["dog", "bird", "fish"]
    assert texts(old) == ["dog", "bird"]
    assert [record.message for record in caplog.records if "--prompts" in record.message] == [
        "--prompts is now --prompt, and will be removed in the next release"
    ]


def texts(outcome):
    return [prompt["text"] for prompt in json.loads(outcome.stdout)["prompts"]]


def a_run(folder):
    path = folder / "run.toml"
    path.write_text('prompts = ["cat"]\nsources = ["clip.mp4"]\n')
    return path


def test_a_public_control_socket_is_refused_and_the_options_are_named(monkeypatch, tmp_path):
    pipeline = Pipeline([ListSource(frames(1))], OraclePerceiver(), PromptSet.of("cat"))
    monkeypatch.setattr(execute, "build_pipeline", lambda _: pipeline)
    outcome = run("serve", a_run(tmp_path), "--control", "tcp://0.0.0.0:*")
    assert isinstance(outcome.exception, ConfigError)
    assert "--keys FOLDER or --public" in str(outcome.exception)


def test_serve_ends_with_the_exit_code_of_a_truncated_source(monkeypatch, tmp_path):
    source = ListSource(frames(3), error=TruncatedError("cut off"))
    pipeline = Pipeline([source], OraclePerceiver(), PromptSet.of("cat"))
    monkeypatch.setattr(execute, "build_pipeline", lambda _: pipeline)
    outcome = run("serve", a_run(tmp_path), "--control", "tcp://127.0.0.1:*", "--json")
    assert outcome.exit_code == execute.EXIT_TRUNCATED
    assert json.loads(outcome.stdout)["outcome"] == "truncated"


def test_serve_answers_while_it_runs(monkeypatch, tmp_path):
    source = ListSource(frames(40), period_s=0.02)
    pipeline = Pipeline([source], OraclePerceiver(), PromptSet.of("cat"))
    monkeypatch.setattr(execute, "build_pipeline", lambda _: pipeline)
    outcome = run("serve", a_run(tmp_path), "--control", "tcp://127.0.0.1:*")
    assert outcome.exit_code == 0
    assert "control: tcp://127.0.0.1:" in outcome.stderr
    assert "40 frames, " in outcome.stderr
    assert "40 frames in" in outcome.stderr
    assert pipeline.outcome == "finished"


SERVER = """
import signal, sys
from ape_stream.cli import execute, main
from ape_stream.pipeline import Pipeline
from ape_stream.sinks.coco import CocoSink
from ape_stream.testing import ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs of a shell script
config, output = sys.argv[1:]
execute.build_pipeline = lambda _: Pipeline(
    [ListSource(frames(10**9), live=True, period_s=0.01)],
    OraclePerceiver(),
    PromptSet.of("cat"),
    sinks=[CocoSink(output)],
)
sys.argv[1:] = ["serve", config, "--control", "tcp://127.0.0.1:*"]
sys.exit(main.main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_cut_the_outputs_of_serve_off(tmp_path, number):
    output = tmp_path / "o.json"
    command = [sys.executable, "-c", SERVER, a_run(tmp_path), output]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as server:
        address = server.stderr.readline().removeprefix("control: ").strip()
        client = ControlClient(address, timeout_s=10)
        while client.ask("stats")["stats"]["streams"]["0"]["published"] < 5:
            time.sleep(0.05)
        server.send_signal(number)
        time.sleep(0.005)
        server.send_signal(number)
        try:
            assert server.wait(20) == 128 + number
        finally:
            server.kill()
    assert len(json.loads(output.read_text())["images"]) >= 5
