"""What is not here, or not what it should be, is one line."""

import sys

import pytest

from ape_peers import places
from ape_stream.errors import ModelError, PluginError
from ape_stream.plugins import make_model


def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(tmp_path):
    with pytest.raises(ModelError, match="is no folder with"):
        places.model_folder(f"{tmp_path}/absent")


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"has no \*\.safetensors"):
        places.model_files(str(tmp_path))


class _Hub:
    """A client of the Hub that has nothing, or one repository."""

    def __init__(self, folder=None):
        self.folder, self.calls = folder, []

    def snapshot_download(self, _model, **options):
        self.calls.append(options)
        if options.get("local_files_only"):
            raise FileNotFoundError("not cached")
        if self.folder is None:
            raise OSError("no\n route")
        return str(self.folder)


def test_a_repository_is_downloaded_once_without_code_and_pickles(tmp_path, monkeypatch):
    hub = _Hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert places.model_folder("google/some") == tmp_path
    assert [call.get("local_files_only") for call in hub.calls] == [True, None]
    assert not any(name.endswith((".py", ".bin")) for name in hub.calls[1]["allow_patterns"])


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", _Hub())
    with pytest.raises(ModelError, match=r"cannot get google/some from .*: no route$"):
        places.model_folder("google/some")


def test_an_extra_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PluginError, match=r"pip install 'ape-stream\[transformers\]'"):
        make_model(f"owlv2:{tmp_path}", {})


def test_a_folder_of_another_model_is_one_line(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="cannot be read as Owlv2ForObjectDetection") as caught:
        places.load_pretrained("Owlv2ForObjectDetection", str(tmp_path))
    assert "\n" not in str(caught.value)
