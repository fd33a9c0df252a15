"""Every item is taken, waiting or reported as dropped; no side waits for ever."""

import threading
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ape_stream.channel import OVERTAKEN, Aborted, Channel, Ended


def counted(capacity, **options):
    """A channel, and how many of its items were dropped by each cause."""
    dropped = Counter()
    count = lambda _item, cause: dropped.update([cause])  # noqa: E731
    return Channel(capacity, on_drop=count, **options), dropped


def later(action, after_s=0.05):
    timer = threading.Timer(after_s, action)
    timer.start()
    return timer


def test_lossless_keeps_order_and_drains_after_end():
    channel = Channel(3)
    for item in range(3):
        channel.put(item)
    assert not channel.exhausted
    channel.end()
    assert not channel.exhausted  # not before all is taken
    assert [channel.get() for _ in range(3)] == [0, 1, 2]
    assert channel.exhausted
    with pytest.raises(Ended):
        channel.get()


def test_lossless_put_waits_for_room():
    channel, dropped = counted(1)
    assert (channel.put_wait_s, channel.get_wait_s) == (0, 0)
    channel.put("first")
    timer = later(channel.get)
    channel.put("second")
    timer.join()
    assert 0.04 <= channel.put_wait_s < 60
    assert 0 <= channel.get_wait_s < 60
    assert channel.get() == "second"
    assert dropped == {}


def test_an_item_that_waits_for_room_counts_as_waiting():
    channel = Channel(1)
    channel.put(0)
    writer = threading.Thread(target=channel.put, args=(1,))
    writer.start()
    deadline = time.monotonic() + 5
    while len(channel) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert (len(channel), channel.ready, channel.room) == (2, 1, 0)
    assert [channel.get(), channel.get()] == [0, 1]
    writer.join(5)
    assert not writer.is_alive()


def test_newest_wins_drops_the_oldest_and_reports_which():
    lost = []
    channel = Channel(2, newest_wins=True, on_drop=lambda item, cause: lost.append((item, cause)))
    for item in range(5):
        channel.put(item)
    assert lost == [(0, OVERTAKEN), (1, OVERTAKEN), (2, OVERTAKEN)]
    assert [channel.get(), channel.get()] == [3, 4]


def test_get_waits_no_longer_than_asked():
    channel = Channel(1)
    with pytest.raises(TimeoutError, match=r"0\.02 s"):
        channel.get(timeout_s=0.02)
    assert channel.get_wait_s >= 0.02


def test_abort_wakes_the_reader():
    channel = Channel(1)
    timer = later(lambda: channel.abort("stopped"))
    with pytest.raises(Aborted):
        channel.get()
    timer.join()


def test_abort_wakes_the_writer_and_counts_what_it_held():
    channel, dropped = counted(1)
    channel.put("waiting")
    timer = later(lambda: channel.abort("stopped"))
    with pytest.raises(Aborted):
        channel.put("held")
    timer.join()
    assert dropped == {"stopped": 2}
    assert len(channel) == 0


def test_the_first_cause_of_an_abort_stays():
    channel, dropped = counted(1)
    channel.abort("failed")
    channel.abort("stopped")
    with pytest.raises(Aborted):
        channel.put(1)
    assert dropped == {"failed": 1}
    assert channel.abort_cause == "failed"


def test_abort_after_end_throws_away_what_waits():
    channel, dropped = counted(2)
    channel.put(1)
    channel.end()
    channel.abort("stopped")
    assert dropped == {"stopped": 1}
    with pytest.raises(Aborted):
        channel.get()


def test_put_after_the_end_is_an_error():
    channel = Channel(1)
    channel.end()
    with pytest.raises(RuntimeError, match="put after end"):
        channel.put(1)


def test_a_channel_holds_at_least_one():
    with pytest.raises(ValueError, match="at least 1 item, got a capacity of 0"):
        Channel(0)


@given(st.lists(st.sampled_from(["put", "get", "abort"]), max_size=40), st.integers(1, 3))
def test_every_item_is_taken_waiting_or_dropped(steps, capacity):
    channel, dropped = counted(capacity, newest_wins=True)
    offered = taken = 0
    for step in steps:
        try:
            if step == "put":
                offered += 1
                channel.put(offered)
            elif step == "get":
                channel.get(timeout_s=0)
                taken += 1
            else:
                channel.abort("stopped")
        except (Aborted, TimeoutError):
            pass
        assert offered == taken + len(channel) + sum(dropped.values())


@pytest.mark.parametrize("newest_wins", [False, True])
def test_two_threads_lose_no_item(newest_wins):
    channel, dropped = counted(2, newest_wins=newest_wins)

    def write():
        for item in range(3000):
            channel.put(item)
        channel.end()

    writer = threading.Thread(target=write)
    writer.start()
    taken = []

    def read():
        while True:
            taken.append(channel.get(timeout_s=10))

    with pytest.raises(Ended):
        read()
    writer.join(10)
    assert taken == sorted(set(taken))
    assert taken[-1] == 2999
    assert len(taken) + dropped[OVERTAKEN] == 3000
    if not newest_wins:
        assert len(taken) == 3000
