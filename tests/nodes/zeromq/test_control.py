import json
import threading
import time

import pytest
import zmq

from ape_nodes.zeromq.control import CONNECT_S, ControlClient, ControlServer
from ape_nodes.zeromq.keys import make_keys
from ape_stream.errors import ConfigError, SourceError
from ape_stream.pipeline import Pipeline
from ape_stream.testing import ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet


@pytest.fixture
def address():
    """The control socket of a pipeline that runs for ever."""
    source = ListSource(frames(10**9), live=True, period_s=0.01)
    pipeline = Pipeline([source], OraclePerceiver(), PromptSet.of("cat, dog"), threshold=0.3)
    with pipeline, ControlServer("tcp://127.0.0.1:*", pipeline) as server:
        looping = threading.Thread(target=lambda: list(pipeline))
        looping.start()
        yield server.address
        pipeline.stop()
        looping.join()


@pytest.fixture
def client(address):
    return ControlClient(address, timeout_s=10)


def texts(answer):
    return [prompt["text"] for prompt in answer["prompts"]]


def test_prompts_and_threshold_change_together(client):
    assert texts(client.ask("get")) == ["cat", "dog"]
    answer = client.ask("set", prompts=["bird", {"text": "sky", "stuff": True}], threshold=0.6)
    assert texts(answer) == ["bird", "sky"]
    assert [p["threshold"] for p in client.ask("get")["prompts"]] == [0.6, 0.6]
    assert client.ask("get")["prompts"][1]["stuff"] is True


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"prompts": ["fish", ""]}, "empty"),
        ({"prompts": ["fish", "\ud800"]}, "is not UTF-8"),
        ({"prompts": ["fi\0sh"]}, "cannot be written"),
        ({"prompts": 7}, "text or a list"),
        ({"prompts": ["fish"], "threshold": 1.7}, "0..1"),
        ({"prompts": ["fish"], "threshold": "x"}, "must be a number"),
        ({"prompts": [{"text": "fish", "colour": 1}]}, "colour"),
        ({"prompts": ["fish"], "speed": 2}, "speed"),
        ({"prompts": ["fish"], "threshold": True}, "must be a number"),
        ({"prompts": [{"text": "fish", "stuff": "yes"}]}, "must be true or false"),
    ],
)
def test_a_refusal_has_a_reason_and_changes_nothing(client, arguments, reason):
    before = client.ask("get")
    with pytest.raises(ConfigError, match=reason):
        client.ask("set", **arguments)
    assert client.ask("get") == before


def test_status_and_stats_are_answered(client):
    assert client.ask("status") == {"status": "running"}
    stats = client.ask("stats")["stats"]
    assert stats["streams"]["0"]["captured"] >= 0
    assert stats["device_memory"] is None  # it runs on a CPU
    assert stats["resident_bytes"] > 10 << 20
    assert client.ask("stop") == {"status": "stopped"}


@pytest.mark.parametrize(
    "request_",
    [b"", b"[]", b'{"op": "dance"}', b'{"op": ["get"]}', b"\xff", b"[" * 100_000],
)
def test_garbage_is_answered(address, request_):
    with zmq.Context() as context, context.socket(zmq.REQ) as plain:
        plain.connect(address)
        plain.send(request_)
        assert plain.poll(5000)
        assert json.loads(plain.recv())["ok"] is False


def test_a_request_of_several_parts_is_refused_and_the_next_one_answered(client, address):
    with zmq.Context() as context, context.socket(zmq.REQ) as plain:
        plain.connect(address)
        plain.send_multipart([b'{"op": "get"}', b"more"])
        assert plain.poll(5000)
        assert json.loads(plain.recv())["ok"] is False
    assert texts(client.ask("get")) == ["cat", "dog"]


def test_a_public_control_socket_needs_keys_and_then_answers_who_has_them(tmp_path):
    pipeline = Pipeline([ListSource(frames(1))], OraclePerceiver(), PromptSet.of("cat"))
    with pytest.raises(ConfigError, match=r"keys=FOLDER"):
        ControlServer("tcp://0.0.0.0:*", pipeline)
    make_keys(tmp_path)
    with pipeline, ControlServer("tcp://0.0.0.0:*", pipeline, keys=str(tmp_path)) as server:
        address = server.address.replace("0.0.0.0", "127.0.0.1")
        assert texts(ControlClient(address, keys=str(tmp_path), timeout_s=10).ask("get")) == ["cat"]
        with pytest.raises(SourceError, match="nobody answers"):
            ControlClient(address, timeout_s=0.5).ask("get")


def test_an_absent_server_is_reported_soon_and_keys_are_named_as_a_cause():
    start = time.monotonic()
    with pytest.raises(SourceError, match=r"nobody answers.*keys"):
        ControlClient("tcp://127.0.0.1:9").ask("get")
    assert time.monotonic() - start < 5
    assert CONNECT_S <= 2  # the start of the command takes most of the third second


def test_a_server_that_does_not_answer_is_reported():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server:
        port = server.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(SourceError, match=r"no answer from .* within 0\.3 s"):
            ControlClient(f"tcp://127.0.0.1:{port}", timeout_s=0.3).ask("get")
