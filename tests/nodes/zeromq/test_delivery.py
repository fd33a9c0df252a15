"""Results and frames between sockets and processes; peers are late, slow or killed."""

import multiprocessing
import os
import signal
import socket as system_socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zmq
from wire_samples import a_frame, a_result, assert_same

import ape_nodes
from ape_nodes.zeromq.keys import make_keys
from ape_nodes.zeromq.sink import FrameSender, ZmqSink
from ape_nodes.zeromq.source import ZmqSource
from ape_stream.errors import ConfigError, SinkError, SourceError
from ape_stream.pipeline import Pipeline
from ape_stream.testing import ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet
from ape_stream.wire import Envelope, encode_result

LOOPBACK = "tcp://127.0.0.1:*"


@pytest.fixture
def port():
    with system_socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def send_slowly(sink, results, pause_s=0.01):
    for result in results:
        sink.write(result)
        time.sleep(pause_s)


def settle(sink, readers=1):
    """Wait until the publisher knows its readers."""
    sink.wait_for_readers(readers, 5.0)


# -- latest ---------------------------------------------------------------------------------


def test_a_published_result_arrives_whole():
    sent = a_result(5)
    with (
        ZmqSink(f"zmq:pub+bind:{LOOPBACK}", image="bgr8", labels="zstd") as sink,
        ape_nodes.subscribe(sink.address, timeout_s=5) as reader,
    ):
        settle(sink)
        sink.write(sent)
        got = next(reader)
        assert_same(sent, got)
        assert got.has_image
        assert got.label_map.shape == sent.frame.size
        assert (sink.stats()["sent"], sink.stats()["no_reader"]) == (1, 0)


def test_a_slow_reader_gets_the_newest_whole_result_and_counts_the_others():
    with (
        ZmqSink(f"zmq:pub+bind:{LOOPBACK}") as sink,
        ape_nodes.subscribe(sink.address, timeout_s=5) as reader,
    ):
        settle(sink)
        send_slowly(sink, [a_result(k) for k in range(100)], 0.002)
        time.sleep(0.2)
        assert next(reader).frame.index == 99
        stats = reader.stats()
        assert stats["received"] + stats["missed"] == 100
        assert stats["skipped"] == stats["received"] - 1


def test_a_plain_socket_with_conflate_gets_whole_messages():
    with (
        ZmqSink(f"zmq:pub+bind:{LOOPBACK}") as sink,
        zmq.Context() as context,
        context.socket(zmq.SUB) as plain,
    ):
        plain.setsockopt(zmq.CONFLATE, 1)
        plain.subscribe(b"cam\0")
        plain.connect(sink.address)
        settle(sink)
        for k in range(20):
            sink.write(a_result(k))
        time.sleep(0.2)
        topic, _, message = plain.recv().partition(b"\0")
        assert topic == b"cam"
        assert message.startswith(b"APES\x01\x01")


def test_only_the_wanted_stream_comes():
    with (
        ZmqSink(f"zmq:pub+bind:{LOOPBACK}") as sink,
        ape_nodes.subscribe(sink.address, "cam1", timeout_s=5) as reader,
    ):
        settle(sink)
        for stream in ("cam10", "cam1", "cam2"):
            sink.write(a_result(0, stream=stream))
        assert next(reader).frame.stream == "cam1"
        time.sleep(0.1)
        assert reader.stats()["received"] == 1


def test_neither_a_late_reader_nor_a_restarted_sender_is_a_gap(port):
    address = f"tcp://127.0.0.1:{port}"
    with ape_nodes.subscribe(address, timeout_s=10) as reader:
        for _ in range(2):
            with ZmqSink(f"zmq:pub+bind:{address}") as sink:
                for k in range(3):
                    sink.write(a_result(k))  # before the reader is subscribed, or just after
                settle(sink)
                sink.write(a_result(9))
                while next(reader).frame.index != 9:
                    pass
        assert reader.stats()["missed"] == 0
        assert reader.stats()["restarts"] == 1


def test_waiting_for_readers_times_out():
    sink = ZmqSink(f"zmq:pub+bind:{LOOPBACK}", readers=1, timeout_s=0.2)
    with pytest.raises(SinkError, match="0 of 1 readers"), sink:
        pass


def test_waiting_for_a_silent_sender_times_out():
    with (
        ape_nodes.subscribe("tcp://127.0.0.1:9", timeout_s=0.3) as reader,
        pytest.raises(SourceError, match="is the sender running"),
    ):
        next(reader)


def test_closing_from_another_thread_ends_the_loop():
    reader = ape_nodes.subscribe("tcp://127.0.0.1:9")
    threading.Timer(0.2, reader.close).start()
    assert list(reader) == []


def test_invalid_messages_are_counted_and_left_out():
    with (
        ape_nodes.subscribe(f"pull+bind:{LOOPBACK}", timeout_s=5) as reader,
        zmq.Context() as context,
        context.socket(zmq.PUSH) as plain,
    ):
        plain.connect(reader.address)
        for message in (b"", b"x", b"\xff\xff\0APES", b"cam\0APES\x02" + bytes(20)):
            plain.send(message)
        plain.send(b"cam\0" + encode_result(a_result(1), Envelope("cam", "r", 0)))
        assert next(reader).frame.index == 1
        assert reader.stats()["refused"] == 4


# -- every ----------------------------------------------------------------------------------

PAIRS = [("push+bind", "pull+connect"), ("router+bind", "dealer+connect")]
PAIRS += [("dealer+bind", "router+connect")]


@pytest.mark.parametrize(("out", "into"), PAIRS)
def test_every_result_arrives_in_order_at_a_slow_reader(out, into):
    with ZmqSink(f"zmq:{out}:{LOOPBACK}") as sink:
        address = sink.address
        sending = threading.Thread(target=send_slowly, args=(sink, map(a_result, range(100)), 0))
        sending.start()
        with ape_nodes.subscribe(f"{into}:{address}", timeout_s=5) as reader:
            seen = []
            while len(seen) < 100:
                seen.append(next(reader).frame.index)
                time.sleep(0.001)
            assert seen == list(range(100))
            assert reader.stats()["missed"] == 0
        sending.join()


@pytest.mark.parametrize("out", ["push+bind", "router+bind", "dealer+bind"])
def test_without_a_reader_sending_waits_and_then_fails(out):
    sink = ZmqSink(f"zmq:{out}:{LOOPBACK}", timeout_s=0.2, linger_s=0.1)
    with pytest.raises(SinkError, match="start one"), sink:  # noqa: PT012
        for k in range(200):
            sink.write(a_result(k))
    assert sink.stats()["sent"] <= 32


def test_the_linger_is_bounded():
    start = time.monotonic()
    with ZmqSink("zmq:push+connect:tcp://127.0.0.1:9", linger_s=0.3) as sink:
        sink.write(a_result())
    assert time.monotonic() - start < 2.0


def _read_for_ever(endpoint, pipe):
    with ape_nodes.subscribe(endpoint) as reader:
        for result in reader:
            pipe.send(result.envelope.sequence)
            time.sleep(0.005)


@pytest.mark.parametrize(
    ("out", "into"), [("router+bind", "dealer+connect"), ("dealer+connect", "router+bind")]
)
def test_a_killed_reader_loses_nothing(out, into, port):
    """kill -9 in the middle: the next reader begins with what the dead one had not received."""
    fork = multiprocessing.get_context("spawn")
    here, there = fork.Pipe(duplex=False)
    endpoint = f"{into}:tcp://127.0.0.1:{port}"
    with ZmqSink(f"zmq:{out}:tcp://127.0.0.1:{port}", timeout_s=30, linger_s=5) as sink:
        sending = threading.Thread(target=send_slowly, args=(sink, map(a_result, range(80)), 0))
        victim = fork.Process(target=_read_for_ever, args=(endpoint, there), daemon=True)
        victim.start()
        sending.start()
        seen = [here.recv() for _ in range(20)]
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        while here.poll():
            seen.append(here.recv())
        with ape_nodes.subscribe(endpoint, timeout_s=15) as reader:
            after = []
            while not after or after[-1] < 79:
                after.append(next(reader).envelope.sequence)
        sending.join()
    assert set(seen) | set(after) == set(range(80))
    assert after == list(range(after[0], 80))


def _send_for_ever(endpoint):
    with ZmqSink(endpoint, timeout_s=30) as sink:
        send_slowly(sink, map(a_result, range(10_000)), 0.005)


@pytest.mark.parametrize(
    ("out", "into"), [("push+bind", "pull+connect"), ("router+bind", "dealer+connect")]
)
def test_a_killed_sender_comes_back_as_a_new_run(out, into, port):
    spawn = multiprocessing.get_context("spawn")
    with ape_nodes.subscribe(f"{into}:tcp://127.0.0.1:{port}", timeout_s=20) as reader:
        runs = set()
        for _ in range(2):
            endpoint = f"zmq:{out}:tcp://127.0.0.1:{port}"
            sender = spawn.Process(target=_send_for_ever, args=(endpoint,), daemon=True)
            sender.start()
            before = len(runs)
            while len(runs) == before:
                runs.add(next(reader).envelope.run)
            os.kill(sender.pid, signal.SIGKILL)
            sender.join()
        assert reader.stats()["restarts"] == 1
        assert reader.stats()["missed"] == 0


def test_a_running_pipeline_sends_label_maps_where_labels_are_asked_for():
    sink = ZmqSink(f"zmq:push+bind:{LOOPBACK}", labels="zstd")
    run = Pipeline(
        [ListSource(frames(2))], OraclePerceiver(), PromptSet.of("cat, dog"), sinks=[sink]
    )
    with run, ape_nodes.subscribe(f"pull+connect:{sink.address}", timeout_s=5) as reader:
        results = list(run)
        for result in results:
            painted = np.zeros(result.frame.size, np.uint16)
            for mask, prompt_id in zip(result.instances.masks, [0, 1], strict=True):
                painted[mask.y : mask.y + 4, mask.x : mask.x + 4] = prompt_id + 1
            np.testing.assert_array_equal(next(reader).label_map, painted)
    assert len(results) == 2


# -- frames in ------------------------------------------------------------------------------


@pytest.mark.parametrize(("out", "into"), [("push+connect", "pull+bind"), ("dealer", "router")])
def test_frames_come_in_and_end(out, into):
    with ZmqSource(f"zmq://{into}:{LOOPBACK}", name="door") as source:
        assert not source.live

        def send():
            with FrameSender(f"{out}:{source.address}", image="bgr8") as sender:
                for k in range(20):
                    sender.send(a_frame(k, stream="theirs"))

        sending = threading.Thread(target=send)
        sending.start()
        received = list(source)
        sending.join()
    assert [frame.index for frame in received] == list(range(20))
    assert {frame.stream for frame in received} == {"door"}
    np.testing.assert_array_equal(received[7].image, a_frame(7).image)


def test_a_published_stream_is_live_and_silence_ends_it():
    with ZmqSource("zmq://sub+connect:tcp://127.0.0.1:9", timeout_s=0.3) as source:
        assert source.live
        with pytest.raises(SourceError, match="no frame came"):
            next(iter(source))


# -- security ----------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:*", "tcp://*:*"])
def test_a_public_bind_needs_keys_or_public(address):
    with pytest.raises(ConfigError, match=r"keys=FOLDER.*public=true.*--keys FOLDER or --public"):
        ZmqSink(f"zmq:pub+bind:{address}").__enter__()
    with ZmqSink(f"zmq:pub+bind:{address}", public=True):
        pass


def test_an_address_in_use_is_refused(port):
    with (
        ZmqSink(f"zmq:pub+bind:tcp://127.0.0.1:{port}"),
        pytest.raises(ConfigError, match="in use"),
    ):
        ZmqSink(f"zmq:pub+bind:tcp://127.0.0.1:{port}").__enter__()


def test_keys_admit_the_listed_clients_and_nobody_else(tmp_path):
    make_keys(tmp_path / "ours")
    make_keys(tmp_path / "theirs")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    for source, name in (("theirs/client.key_secret", "client.key_secret"),
                         ("ours/server.key", "server.key")):  # fmt: skip
        (stranger / name).write_bytes((tmp_path / source).read_bytes())
    with ZmqSink(f"zmq:pub+bind:{LOOPBACK}", keys=str(tmp_path / "ours")) as sink:
        for keys in (None, str(stranger)):
            with ape_nodes.subscribe(sink.address, keys=keys, timeout_s=0.4) as reader:
                time.sleep(0.2)
                sink.write(a_result())
                with pytest.raises(SourceError):
                    next(reader)
        with ape_nodes.subscribe(sink.address, keys=str(tmp_path / "ours"), timeout_s=5) as reader:
            settle(sink)
            sink.write(a_result(3))
            assert next(reader).frame.index == 3


def test_secret_keys_are_private_and_never_replaced(tmp_path):
    make_keys(tmp_path)
    for secret in tmp_path.glob("*_secret"):
        assert secret.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="keys already"):
        make_keys(tmp_path)


def test_missing_keys_are_reported():
    with pytest.raises(ConfigError, match="ape-stream keys"):
        ZmqSink(f"zmq:pub+bind:{LOOPBACK}", keys="/nowhere").__enter__()


@pytest.mark.parametrize("options", [{"image": "gif"}, {"labels": "rar"}])
def test_unknown_codecs_are_refused(options):
    with pytest.raises(ConfigError, match="none of"):
        ZmqSink(f"zmq:pub+bind:{LOOPBACK}", **options)


def test_many_openings_leave_nothing_open():
    def once():
        with ZmqSink(f"zmq:pub+bind:{LOOPBACK}") as sink, ape_nodes.subscribe(sink.address):
            sink.write(a_result(n=0))

    once()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        once()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
