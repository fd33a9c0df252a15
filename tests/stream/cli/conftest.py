"""A folder with fake plugins in it, that commands run in."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("fake_plugins", HERE / "fake_plugins.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("ape_fakes", None)
