import sys
import threading
from pathlib import Path

import pytest

for folder in (
    ".",
    "zeromq",
    "ros2",
    "web",
    "../stream",
):  # importlib mode: the helper modules of the tests
    sys.path.insert(0, str(Path(__file__).parent / folder))


@pytest.fixture(autouse=True)
def _no_thread_left_behind():
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(2.0)
        assert not thread.is_alive(), f"{thread.name} still runs"
