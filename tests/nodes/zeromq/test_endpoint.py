import pytest

from ape_nodes.zeromq.endpoint import RECEIVING, SENDING, Endpoint
from ape_stream.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "kinds", "expected"),
    [
        ("zmq:pub+bind:tcp://127.0.0.1:5557", SENDING, "pub+bind:tcp://127.0.0.1:5557"),
        ("zmq://pull+bind:ipc:///tmp/x", RECEIVING, "pull+bind:ipc:///tmp/x"),
        ("tcp://robot:5557", RECEIVING, "sub+connect:tcp://robot:5557"),
        ("push:tcp://127.0.0.1:1", SENDING, "push+bind:tcp://127.0.0.1:1"),
        ("dealer:ipc://x", SENDING, "dealer+connect:ipc://x"),
    ],
)
def test_endpoints_are_read(text, kinds, expected):
    assert str(Endpoint.parse(text, kinds)) == expected


@pytest.mark.parametrize(
    "text", ["", "pub", "tcp:/x:1", "sub+bind:tcp://127.0.0.1:1", "pub+listen:tcp://x:1", "tcp://x"]
)
def test_other_strings_are_refused(text):
    with pytest.raises(ConfigError):
        Endpoint.parse(text, SENDING)


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("tcp://127.0.0.1:5", True),
        ("tcp://localhost:5", True),
        ("tcp://[::1]:5", True),
        ("ipc:///tmp/a", True),
        ("tcp://*:5", False),
        ("tcp://0.0.0.0:5", False),
        ("tcp://192.168.1.2:5", False),
        ("tcp://eth0:5", False),
        ("tcp://[::]:5", False),
    ],
)
def test_addresses_that_other_machines_reach_are_recognised(address, private):
    assert Endpoint("pub", binds=True, address=address).is_private is private
