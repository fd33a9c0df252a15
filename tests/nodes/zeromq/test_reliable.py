"""The windows against a connection that loses messages and readers that restart."""

import random

import pytest

from ape_nodes.zeromq.reliable import (
    Ack,
    DeliveryHeader,
    ReceiveWindow,
    SendWindow,
    parse_ack,
    parse_header,
)
from ape_stream.errors import WireError


def test_headers_and_acks_come_back():
    header = DeliveryHeader(False, b"12345678", 7, 5)
    ack = Ack(b"abcdefgh", b"12345678", 9, 8, resend=True)
    assert parse_header(header.pack()) == header
    assert parse_ack(ack.pack()) == ack
    assert (len(header.pack()), len(ack.pack())) == (32, 40)


@pytest.mark.parametrize("data", [b"", b"APED" + bytes(28), b"X" * 32, bytes(40)])
def test_invalid_headers_are_refused(data):
    with pytest.raises(WireError):
        parse_header(data)
    with pytest.raises(WireError):
        parse_ack(data)


def test_nothing_is_due_before_a_reader_has_answered():
    sender = SendWindow(4)
    sender.add(b"a")
    assert sender.due() is None
    sender.on_ack(ReceiveWindow().announce(), 0.0)
    assert sender.due()[1] == b"a"


def test_a_second_reader_waits_until_the_first_is_silent():
    sender = SendWindow(4)
    first, second = ReceiveWindow(), ReceiveWindow()
    assert sender.on_ack(first.announce(), 0.0)
    assert not sender.on_ack(second.announce(), 1.0)
    assert sender.on_ack(second.announce(), 3.5)


def test_an_acknowledgement_of_what_was_never_sent_frees_nothing():
    sender = SendWindow(4)
    sender.add(b"a")
    sender.on_ack(Ack(b"s" * 8, sender.run, 99, 99), 0.0)
    assert sender.unacknowledged == 1


@pytest.mark.parametrize("seed", range(30))
def test_lost_messages_and_reader_restarts_lose_nothing(seed):  # noqa: C901
    """Half the messages are lost both ways and the reader is killed now and then: each reader gets
    them in order, and the readers together get every message."""
    rng = random.Random(seed)
    sender, reader, now = SendWindow(8), ReceiveWindow(), 0.0
    handed, fresh, waiting, added = [], [], [], 0
    while len(set(handed)) < 60:
        now += 0.1
        assert now < 1000, "no progress"
        while not sender.full and added < 60:
            sender.add(str(added).encode())
            added += 1
        out = []
        while (due := sender.due()) is not None:
            sender.mark_sent()
            out.append(due)
        if (ping := sender.ping(now)) is not None:
            out.append((ping, None))
        answers = []
        for data, message in out:
            if rng.random() < 0.5:
                continue
            header = parse_header(data)
            fits, answer = reader.accept(header, now)
            if fits:
                waiting.append((header, int(message)))
            answers += [answer] if answer else []
        while waiting and rng.random() < 0.7:
            header, number = waiting.pop(0)
            reader.delivered(header.run, header.sequence)
            handed.append(number)
            fresh.append(number)
        if rng.random() < 0.02:
            assert not fresh or fresh == list(range(fresh[0], fresh[0] + len(fresh)))
            reader, waiting, fresh = ReceiveWindow(), [], []
        answers += reader.acks(everything=True) or [reader.announce()]
        for ack in answers:
            if rng.random() < 0.5:
                sender.on_ack(parse_ack(ack.pack()), now)
    assert sorted(set(handed)) == list(range(60))
