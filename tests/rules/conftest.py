import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: the helper module of the rules


@pytest.fixture(scope="package", autouse=True)
def _sources_are_parsed_once():
    yield
    sys.modules["house"].forget_sources()
