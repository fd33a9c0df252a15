"""The window's book-keeping against a wire that loses, cuts and forgets."""

import random

import pytest

from ape_nodes.zeromq.reliable import Ack, Note, ReceivingEnd, SendingEnd, parse_ack, parse_note
from ape_stream.errors import WireError


def test_notes_and_acks_come_back():
    note = Note(False, b"12345678", 7, 5)
    ack = Ack(b"abcdefgh", b"12345678", 9, 8, resend=True)
    assert parse_note(note.pack()) == note
    assert parse_ack(ack.pack()) == ack
    assert (len(note.pack()), len(ack.pack())) == (32, 40)


@pytest.mark.parametrize("data", [b"", b"APED" + bytes(28), b"X" * 32, bytes(40)])
def test_strange_notes_are_refused(data):
    with pytest.raises(WireError):
        parse_note(data)
    with pytest.raises(WireError):
        parse_ack(data)


def test_nothing_goes_out_before_a_reader_has_spoken():
    sender = SendingEnd(4)
    sender.add(b"a")
    assert sender.due() is None
    sender.hear(ReceivingEnd().hello(), 0.0)
    assert sender.due()[1] == b"a"


def test_a_second_reader_waits_until_the_first_is_silent():
    sender = SendingEnd(4)
    first, second = ReceivingEnd(), ReceivingEnd()
    assert sender.hear(first.hello(), 0.0)
    assert not sender.hear(second.hello(), 1.0)
    assert sender.hear(second.hello(), 3.5)


def test_an_acknowledgement_of_what_was_never_sent_frees_nothing():
    sender = SendingEnd(4)
    sender.add(b"a")
    sender.hear(Ack(b"s" * 8, sender.run, 99, 99), 0.0)
    assert sender.unacknowledged == 1


@pytest.mark.parametrize("seed", range(30))
def test_a_bad_wire_and_reader_restarts_lose_nothing(seed):  # noqa: C901
    """Half the messages are lost both ways and the reader is killed at times: all arrive in order
    within each reader, and the readers together took every message."""
    rng = random.Random(seed)
    sender, reader, now = SendingEnd(8), ReceivingEnd(), 0.0
    handed, fresh, waiting, added = [], [], [], 0
    while len(set(handed)) < 60:
        now += 0.1
        assert now < 1000, "it stands still"
        while not sender.full and added < 60:
            sender.add(str(added).encode())
            added += 1
        out = []
        while (due := sender.due()) is not None:
            sender.sent()
            out.append(due)
        if (ping := sender.ping(now)) is not None:
            out.append((ping, None))
        answers = []
        for data, message in out:
            if rng.random() < 0.5:
                continue
            note = parse_note(data)
            fits, answer = reader.accept(note, now)
            if fits:
                waiting.append((note, int(message)))
            answers += [answer] if answer else []
        while waiting and rng.random() < 0.7:
            note, number = waiting.pop(0)
            reader.taken(note.run, note.sequence)
            handed.append(number)
            fresh.append(number)
        if rng.random() < 0.02:
            assert not fresh or fresh == list(range(fresh[0], fresh[0] + len(fresh)))
            reader, waiting, fresh = ReceivingEnd(), [], []
        answers += reader.acks(everything=True) or [reader.hello()]
        for ack in answers:
            if rng.random() < 0.5:
                sender.hear(parse_ack(ack.pack()), now)
    assert sorted(set(handed)) == list(range(60))
