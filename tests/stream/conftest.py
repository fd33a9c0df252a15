import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: the helper modules of the tests

import fake_plugins


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with fake plugins in it, that commands run in."""
    fake_plugins.install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("ape_fakes", None)
