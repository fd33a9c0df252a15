"""How many connections there may be, and for how long one may leave unread what it asked for."""

import asyncio
import socket
import time

import pytest
from live_run import WAIT_S, LiveRun

from ape_nodes.web import listening
from ape_nodes.web.listening import Connections

MOST, MOST_OF_ONE = 5, 3
REQUEST = b"GET /js/app.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def run():
    """A server that has few connections, and cuts off who leaves something unread for a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listening, "UNREAD_S", 1)
        patch.setattr(Connections.__init__, "__defaults__", (MOST, MOST_OF_ONE))
        with LiveRun() as run:
            yield run


def connected(run, source="127.0.0.1", **options):
    """A connection; None where the server closes it at once."""
    host, port = run.base.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), WAIT_S, (source, 0), **options)
    made.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    try:
        if made.recv(4096):
            return made
    except ConnectionError:
        pass
    made.close()
    return None


def wait_until(true):
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_address_and_all_together_have_so_many_and_get_them_back(run, caplog):
    held = [connected(run) for _ in range(MOST_OF_ONE + 2)]
    others = [connected(run, "127.0.0.2") for _ in range(MOST)]
    try:
        assert [one is not None for one in held] == [True] * MOST_OF_ONE + [False] * 2
        assert [one is not None for one in others] == [True] * (MOST - MOST_OF_ONE) + [False] * 3
    finally:
        for one in held + others:
            if one is not None:
                one.close()
    wait_until(lambda: len(run.sink._server.connections) == 0)
    back = connected(run)
    assert back is not None
    back.close()
    assert run.sink._server.connections.refused == 5
    assert caplog.text.count("too many connections") == 1


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="a limit of Linux")
def test_who_reads_nothing_of_what_was_asked_for_is_cut_off(run):
    """A closed connection would stay as long as something is unread: each holds a descriptor."""
    wait_until(lambda: len(run.sink._server.connections) == 0)
    host, port = run.base.removeprefix("http://").split(":")
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((host, int(port)))
        lazy.settimeout(0.2)
        try:
            for _ in range(2000):  # 30 MB of answers
                lazy.sendall(REQUEST)
        except TimeoutError:
            pass
        assert len(run.sink._server.connections) == 1
        wait_until(lambda: len(run.sink._server.connections) == 0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_a_host_has_all_addresses_of_its_network(one, other, same):
    limited = Connections(9, 1)
    assert limited.enter(one) is not None
    assert (limited.enter(other) is None) == same


def test_a_name_of_several_addresses_has_one_port():
    async def main():
        bound = listening.listening("localhost", 0, Connections())
        ports = {one.getsockname()[1] for one in bound}
        with pytest.raises(OSError, match="in use"):
            listening.listening("localhost", ports.copy().pop(), Connections())
        for one in bound:
            one.close()
        return ports

    assert len(asyncio.run(main())) == 1
