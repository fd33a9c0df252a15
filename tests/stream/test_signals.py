"""Ending by a signal: the first acts, others are counted, the third kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ape_stream.signals import Ending, deferred, on_first_signal, polite_end

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)],
)
def test_the_first_signal_raises_and_the_second_is_counted(number, error):
    before = signal.getsignal(number)
    with pytest.raises(error) as raised, polite_end() as ending:  # noqa: PT012
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGTERM)
    assert ending.received == [number, signal.SIGTERM]
    assert ending.by == number
    if error is SystemExit:
        assert raised.value.code == 128 + number
    assert signal.getsignal(number) is before


def test_a_second_signal_within_the_handler_of_the_first_loses_neither():
    ending, second = Ending(), []

    class Interrupted(list):
        """The next signal comes while the first is being counted."""

        def append(self, number):
            super().append(number)
            if len(self) == 1:
                second.append(ending.take(signal.SIGTERM))

    ending.received = Interrupted()
    assert ending.take(signal.SIGINT) is True
    assert second == [False]


@pytest.mark.parametrize("number", NUMBERS)
def test_with_a_way_to_stop_nothing_is_raised(number):
    lock, stops, stopped = threading.Lock(), [], threading.Event()

    def stop():
        with lock:
            stops.append(number)
        stopped.set()

    with polite_end() as ending:
        on_first_signal(stop)
        with lock:  # as a pipeline's main thread may, when the signal comes
            signal.raise_signal(number)
            signal.raise_signal(number)
        assert stopped.wait(10)
    assert stops == [number]
    assert ending.by == number


def test_a_signal_stops_every_run_and_one_thread_does_it():
    done = [threading.Event(), threading.Event()]
    with polite_end() as ending:
        for event in done:
            on_first_signal(event.set)
        assert sum(t.name == "signals" for t in threading.enumerate()) == 1
        signal.raise_signal(signal.SIGINT)
        assert all(event.wait(10) for event in done)
    assert not ending.thread.is_alive()
    assert not ending.stops


def test_no_thread_is_left_where_no_signal_came():
    with polite_end():
        on_first_signal(lambda: None)
        (thread,) = [t for t in threading.enumerate() if t.name == "signals"]
    thread.join(10)
    assert not thread.is_alive()


def test_deferred_signals_act_after_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with deferred():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append(1)
        done.append(2)
    assert done == [1]


def test_deferred_signals_of_a_polite_end_are_only_counted():
    with polite_end() as ending:
        with deferred():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert ending.received == [signal.SIGTERM, signal.SIGINT]
    assert ending.by is None


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with polite_end() as ending, deferred():
            signal.raise_signal(signal.SIGHUP)
        assert ending.received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_are_left_alone():
    seen = []

    def work():
        before = signal.getsignal(signal.SIGINT)
        with polite_end(), deferred():
            seen.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_third_signal_kills_a_process_that_does_not_end(number):
    code = (
        "import os\n"
        "from ape_stream.signals import Ending, deferred, polite_end\n"
        "with polite_end():\n"
        f"    try: os.kill(os.getpid(), {int(number)})\n"
        "    finally:\n"
        "        with deferred():\n"
        f"            for k in (2, 3): print(k, flush=True); os.kill(os.getpid(), {int(number)})\n"
        "        print('not reached')\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-number, "2\n3\n")


def test_the_run_is_freed_when_the_block_ends():
    freed = []

    class Run:
        def stop(self):
            """Nothing."""

        def __del__(self):
            time.sleep(0.2)  # as a large model takes
            freed.append(self)

    with polite_end():
        run = Run()
        on_first_signal(run.stop)
        del run
    assert len(freed) == 1


@pytest.mark.parametrize(("last", "printed"), [(True, ""), (False, "looked for\n")])
def test_a_process_that_ends_does_not_look_for_circles_of_references(last, printed):
    """That takes longer than all else of the end where torch is imported."""
    code = (
        "import gc; gc.disable()\n"
        "from ape_stream.signals import polite_end\n"
        "class Circle:\n"
        "    def __del__(self): print('looked for', flush=True)\n"
        f"with polite_end(last={last}):\n"
        "    one = Circle(); one.itself = one; del one\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == printed
