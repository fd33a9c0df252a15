"""Broken and hostile peers: nothing hangs or dies, every loss is counted."""

import gc
import json
import socket as system_socket
import struct
import threading
import time

import msgpack
import numpy as np
import pytest
import zmq
from wire_samples import a_result

import ape_nodes
from ape_nodes.zeromq import receiver
from ape_nodes.zeromq import sender as sender_module
from ape_nodes.zeromq.control import ControlClient, ControlServer
from ape_nodes.zeromq.keys import make_keys
from ape_nodes.zeromq.reliable import DeliveryHeader
from ape_nodes.zeromq.sink import ZmqSink
from ape_nodes.zeromq.source import ZmqSource
from ape_stream.errors import ConfigError, SinkError, SourceError, WireError
from ape_stream.types import PromptSet
from ape_stream.wire import Envelope, decode_result, encode_result, header

LOOPBACK = "tcp://127.0.0.1:*"


@pytest.fixture
def plain():
    """Makes plain sockets that are connected to an address."""
    made = []
    with zmq.Context() as context:

        def make(kind, address):
            socket = context.socket(kind)
            made.append(socket)
            socket.linger = 0
            socket.connect(address)
            return socket

        yield make
        for socket in made:
            socket.close()


def a_message(sequence=0, run="r", stream="cam"):
    envelope = Envelope(stream, run, sequence)
    return stream.encode() + b"\0" + encode_result(a_result(sequence), envelope)


# -- counting ---------------------------------------------------------------------------------


def test_the_gaps_of_two_senders_on_one_stream_are_counted(plain):
    with ape_nodes.subscribe(f"pull+bind:{LOOPBACK}", timeout_s=5) as reader:
        sender = plain(zmq.PUSH, reader.address)
        for sequence in (0, 1, 5, 6, 9):
            for run in "ab":
                sender.send(a_message(sequence, run))
        for _ in range(10):
            next(reader)
        assert reader.stats()["missed"] == 2 * (3 + 2)
        assert reader.stats()["restarts"] == 1


def test_a_sender_that_counts_from_0_again_under_its_old_run_hides_no_gap(plain):
    with ape_nodes.subscribe(f"pull+bind:{LOOPBACK}", timeout_s=5) as reader:
        sender = plain(zmq.PUSH, reader.address)
        for sequence in (0, 1, 5, 0, 1, 4, 4):
            sender.send(a_message(sequence))
            next(reader)
        assert (reader.stats()["missed"], reader.stats()["restarts"]) == (3 + 2, 2)


def test_what_was_sent_before_a_reader_joined_is_counted(plain):
    with ape_nodes.subscribe(f"pull+bind:{LOOPBACK}", timeout_s=5) as reader:
        sender = plain(zmq.PUSH, reader.address)
        for sequence, run in ((7, "a"), (8, "a"), (2, "b")):
            sender.send(a_message(sequence, run))
            next(reader)
        assert (reader.stats()["before_join"], reader.stats()["missed"]) == (9, 0)


def test_what_is_remembered_of_streams_and_runs_is_bounded(plain, monkeypatch):
    monkeypatch.setattr(receiver, "_MAX_RUNS", 5)
    with ape_nodes.subscribe(f"sub+bind:{LOOPBACK}", timeout_s=5) as reader:
        sender = plain(zmq.XPUB, reader.address)
        assert sender.poll(5000)
        for number in range(8):
            sender.send(a_message(number, stream=f"s{number % 2}", run=f"r{number}"))
        for number in range(8):
            sender.send(a_message(number, stream=f"t{number}"))
        wait_until(lambda: reader.stats()["received"] == 16)
        stats = reader.stats()
        assert (stats["runs"], stats["waiting"]) == (5, 5)
        assert (stats["skipped"], stats["restarts"]) == (16 - 5, 6)
        assert [next(reader).frame.stream for _ in range(5)] == [f"t{k}" for k in range(3, 8)]


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.01)


def test_frames_that_cannot_be_decoded_are_counted_and_do_not_end_the_silence(plain, caplog):
    with ZmqSource(f"zmq://pull+bind:{LOOPBACK}", timeout_s=0.5) as source:
        sender, ending = plain(zmq.PUSH, source.address), threading.Event()

        def send():
            while not ending.is_set():
                sender.send(a_message())  # a result, not a frame
                time.sleep(0.002)

        sending = threading.Thread(target=send)
        sending.start()
        try:
            with pytest.raises(SourceError, match="no frame came"):
                list(source)
        finally:
            ending.set()
            sending.join()
        assert source.stats()["refused"] > 10
        assert len(caplog.records) <= 3  # the first, the tenth, the hundredth


def test_a_damaged_result_is_raised_and_counted(plain):
    message = a_message()
    with ape_nodes.subscribe(f"pull+bind:{LOOPBACK}", timeout_s=5) as reader:
        sender = plain(zmq.PUSH, reader.address)
        sender.send(a_message().replace(b"boxes", b"b0xes"))
        sender.send(message)
        with pytest.raises(WireError, match="boxes"):
            next(reader)
        assert next(reader).frame.index == 0
        assert reader.stats()["refused"] == 1


# -- what once ended a reader or a sender -------------------------------------------------------


@pytest.mark.parametrize("number", [2**63, 2**64 - 1])
def test_a_delivery_header_with_the_largest_number_does_not_end_the_reader(plain, number):
    with ape_nodes.subscribe(f"router+bind:{LOOPBACK}", timeout_s=5) as reader:
        sender = plain(zmq.DEALER, reader.address)
        sender.send_multipart(
            [DeliveryHeader(False, b"x" * 8, number, number).pack(), a_message(1)]
        )
        sender.send_multipart([DeliveryHeader(False, b"y" * 8, 0, 0).pack(), a_message(2)])
        assert next(reader).frame.index == 2
        assert reader.stats()["refused"] == 1


def test_a_message_over_the_size_limit_is_dropped_and_the_next_one_arrives(plain, monkeypatch):
    monkeypatch.setattr(receiver, "MAX_MESSAGE_BYTES", 100_000)
    with ape_nodes.subscribe(f"pull+bind:{LOOPBACK}", timeout_s=5) as reader:
        plain(zmq.PUSH, reader.address).send(bytes(300_000))
        plain(zmq.PUSH, reader.address).send(a_message(1))
        assert next(reader).frame.index == 1
        assert (reader.stats()["received"], reader.stats()["refused"]) == (1, 0)


def test_a_message_over_the_size_limit_is_not_sent(monkeypatch):
    monkeypatch.setattr(header, "MAX_MESSAGE_BYTES", 100)
    with pytest.raises(WireError, match="100 at most"):
        encode_result(a_result(1), Envelope("cam", "r", 0))


def test_a_flood_of_answers_does_not_stop_the_sender(plain, caplog, monkeypatch):
    monkeypatch.setattr(sender_module, "_RECEIVE_BURST", 10)
    monkeypatch.setattr(sender_module.ReliableSender, "_serve_reader", lambda _: None)
    with ZmqSink(f"zmq:router+bind:{LOOPBACK}", timeout_s=5, linger_s=0.1) as sink:
        peer = plain(zmq.DEALER, sink.address)
        for _ in range(50):
            peer.send(b"nonsense")
        time.sleep(0.3)
        sink.write(a_result(1))
        assert 0 < sink.stats()["refused"] <= 20
    assert len(caplog.records) <= 3  # the first, the tenth, and the result that nobody took


def test_a_flood_of_subscriptions_does_not_stop_the_publisher(plain, monkeypatch):
    monkeypatch.setattr(sender_module, "_RECEIVE_BURST", 10)
    with ZmqSink(f"zmq:pub+bind:{LOOPBACK}") as sink:
        peer = plain(zmq.XSUB, sink.address)
        for _ in range(100):
            peer.send(b"\x01a")
        time.sleep(0.3)
        readers = [0]
        while readers[-1] < 100:
            sink.write(a_result(0))
            readers.append(sink.stats()["readers"])
        assert max(np.diff(readers)) == 10


def test_an_unsubscription_from_nothing_hides_no_reader(plain):
    with ZmqSink(f"zmq:pub+bind:{LOOPBACK}") as sink, bare_subscriber(sink.address) as peer:
        for message in (b"\x00a", b"\x00b"):  # no library sends this; ZeroMQ may drop the first
            peer.sendall(bytes([0, len(message)]) + message)
        time.sleep(0.2)
        plain(zmq.SUB, sink.address).subscribe(b"")
        sink.wait_for_readers(1, 5)
        sink.write(a_result(0))
        assert sink.stats()["no_reader"] == 0


def bare_subscriber(address):
    """A TCP connection after the handshake of ZMTP 3.0, as a SUB socket."""
    host, port = address.removeprefix("tcp://").split(":")
    peer = system_socket.create_connection((host, int(port)))
    peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31))
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 3) + b"SUB"
    peer.sendall(bytes([4, len(ready)]) + ready)
    peer.recv(64)
    return peer


def test_a_reader_that_leaves_between_poll_and_send_does_not_stop_the_sender(
    monkeypatch,
):
    with ZmqSink(f"zmq:push+bind:{LOOPBACK}", timeout_s=0.2, linger_s=0) as sink:
        monkeypatch.setattr(zmq.Socket, "poll", lambda *_: 1)  # says that there is room
        with pytest.raises(SinkError, match="start one"):
            sink.write(a_result(0))


@pytest.mark.parametrize(
    ("out", "into"), [("router+bind", "dealer+connect"), ("dealer+bind", "router+connect")]
)
def test_a_reader_that_joins_while_nothing_is_sent_gets_what_waits(out, into):
    with ZmqSink(f"zmq:{out}:{LOOPBACK}", timeout_s=5) as sink:
        sink.write(a_result(1))
        for _ in range(2):  # the first one leaves without having received anything
            with ape_nodes.subscribe(f"{into}:{sink.address}", timeout_s=5) as reader:
                wait_until(lambda reader=reader: reader.stats()["received"] == 1)
        with ape_nodes.subscribe(f"{into}:{sink.address}", timeout_s=5) as reader:
            assert next(reader).frame.index == 1
        wait_until(lambda: sink.stats()["unacknowledged"] == 0)


def test_a_reader_that_nobody_closed_leaves_nothing_open():
    before = set(threading.enumerate())
    ape_nodes.subscribe("tcp://127.0.0.1:9")
    gc.collect()
    wait_until(lambda: set(threading.enumerate()) <= before)


# -- the wire ---------------------------------------------------------------------------------


def with_head(**changes):
    message = encode_result(a_result(1), Envelope("cam", "r", 0))
    length = struct.unpack_from("<I", message, 8)[0]
    head = msgpack.unpackb(message[12 : 12 + length]) | changes
    packed = msgpack.packb(head)
    return message[:8] + struct.pack("<I", len(packed)) + packed + message[12 + length :]


@pytest.mark.parametrize(
    "changes",
    [{"timings": {b"x": 1.0}}, {"stream": "s" * 1001}, {"run": "r" * 1001}],
    ids=["bytes as a name", "long stream", "long run"],
)
def test_strange_names_are_refused(changes):
    decode_result(with_head())
    with pytest.raises(WireError, match="name"):
        decode_result(with_head(**changes))


def test_a_long_name_is_not_sent():
    with pytest.raises(WireError, match="1000 characters"):
        encode_result(a_result(1), Envelope("s" * 1001, "r", 0))


# -- control and keys ---------------------------------------------------------------------------


class SlowPipeline:
    """Is slow, so that peers come and go while the server is busy."""

    @property
    def prompts(self):
        time.sleep(0.5)
        return PromptSet.of("cat")


def test_peers_that_sent_garbage_and_left_cost_nobody_an_answer():
    with ControlServer(LOOPBACK, SlowPipeline()) as server:
        host, port = server.address.removeprefix("tcp://").split(":")
        client = ControlClient(server.address, timeout_s=5)
        asking = threading.Thread(target=client.ask, args=("get",))
        asking.start()
        time.sleep(0.2)  # the server is busy now
        for _ in range(5):
            with system_socket.create_connection((host, int(port))) as peer:
                peer.sendall(b"\x01\x00" + b"\x02\x00x")  # ZMTP 1.0: no name, a part "x"
                time.sleep(0.01)
        asking.join()
        assert client.ask("get")["prompts"][0]["text"] == "cat"


def test_a_message_that_is_not_a_request_gets_no_answer(plain):
    with ControlServer(LOOPBACK, SlowPipeline()) as server:
        peer = plain(zmq.DEALER, server.address)
        for parts in ([b"x"], [b"x", b"y"], [b"", b'{"op": "get"}'], [b"path", b"", b"[]"]):
            peer.send_multipart(parts)
        assert peer.poll(5000)
        path, answer = peer.recv_multipart()
        assert (path, json.loads(answer)["ok"]) == (b"", True)
        assert peer.poll(5000)
        path, empty, answer = peer.recv_multipart()
        assert (path, empty, json.loads(answer)["ok"]) == (b"path", b"", False)
        assert not peer.poll(200)


@pytest.mark.parametrize("answer", [[b"hello"], [b"[]"], [b"{}"], [b'{"ok": 1}'], [b"", b"x"]])
def test_something_that_is_not_a_control_socket_is_reported(answer):
    with zmq.Context() as context, context.socket(zmq.REP) as server:
        port = server.bind_to_random_port("tcp://127.0.0.1")

        def serve():
            server.recv()
            server.send_multipart(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(SourceError, match="not a control socket"):
            ControlClient(f"tcp://127.0.0.1:{port}", timeout_s=5).ask("get")
        serving.join()


def test_a_request_that_is_too_long_is_not_sent():
    with pytest.raises(ConfigError, match="too long"):
        ControlClient("tcp://127.0.0.1:9").ask("set", prompts=["x" * 1_000_000])


NO_KEY = 'curve\n    public-key = "abc"\n    secret-key = "def"\n'


@pytest.mark.parametrize("name", ["server.key_secret", "clients/other.key", "clients/client.key"])
@pytest.mark.parametrize("content", ["", "garbage", NO_KEY, NO_KEY.replace("abc", "\\" * 40)])
def test_a_file_that_is_not_a_key_is_named(tmp_path, name, content):
    make_keys(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=f"{name} cannot be read"):
        ZmqSink(f"zmq:pub+bind:{LOOPBACK}", keys=str(tmp_path)).__enter__()


def test_a_folder_that_admits_nobody_is_refused(tmp_path):
    make_keys(tmp_path)
    (tmp_path / "clients/client.key").unlink()
    with pytest.raises(ConfigError, match="admits nobody"):
        ZmqSink(f"zmq:pub+bind:{LOOPBACK}", keys=str(tmp_path)).__enter__()
