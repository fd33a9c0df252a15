import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: the helper module of the tests

from in_process import without_processes


@pytest.fixture
def in_process():
    """Jobs of this test start no processes."""
    with without_processes():
        yield
