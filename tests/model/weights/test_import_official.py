"""Official checkpoints in, our two files out; and every way in which a file can be wrong."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ape_model.config import PRESETS
from ape_model.errors import CheckpointError, VariantError
from ape_model.io.checkpoint_reader import file_digest, read_checkpoint
from ape_model.io.safetensors_io import read_safetensors
from ape_model.weights.import_official import (
    FORMAT,
    TEXT_FILE,
    VISION_FILE,
    Layout,
    import_checkpoint,
)
from ape_model.weights.state_dict import content_digest, is_recomputed, load_weights

_HERE = Path(__file__).parents[1]
_SHARED = _HERE.parents[2] / "shared" / "goldens"


def _manifests() -> dict[str, Any]:
    """Read the manifests that are ours, and over them those of the folder that is named."""
    found = {}
    for folder in (_HERE / "goldens", Path(os.environ.get("APE_GOLDENS") or _SHARED)):
        for path in sorted(folder.glob("manifest_*.json")):
            found[re.sub(r".*[-_]", "", path.stem)] = json.loads(path.read_text(encoding="utf-8"))
    return found


MANIFESTS = _manifests()

# ---- keys of the presets


@pytest.mark.parametrize("variant", MANIFESTS)
def test_manifest_keys_and_shapes(variant: str) -> None:
    want = {
        key: tuple(shape)
        for key, (shape, _) in MANIFESTS[variant]["state_dict"].items()
        if not is_recomputed(key)
    }
    assert Layout.of(variant).official == want


@pytest.mark.parametrize("variant", MANIFESTS)
def test_manifest_ignored_keys_are_those_that_may_be(variant: str) -> None:
    manifest = MANIFESTS[variant]
    ignored = {key for key in manifest["state_dict"] if is_recomputed(key)}
    allowed = manifest["checkpoint_expectation"]["keys_recomputable_or_unneeded_for_inference"]
    assert ignored == set(allowed)


@pytest.mark.parametrize("variant", MANIFESTS)
def test_manifest_tied_keys_are_aliases(variant: str) -> None:
    tied = {frozenset(pair) for pair in MANIFESTS[variant]["tied_parameters"]}
    ours = Layout.of(variant).aliases.items()
    assert {frozenset(f"model_vision.{key}" for key in pair) for pair in ours} == tied


def test_manifest_of_every_preset_is_there() -> None:
    assert set(MANIFESTS) == set(PRESETS)


# ---- a whole import


def test_import_brings_every_number_over(tiny, released: Path, tmp_path: Path) -> None:
    network, tower, layout = tiny.network, tiny.tower, tiny.layout
    report = import_checkpoint(released, "D", tmp_path / "D", layout=layout)
    loaded, loaded_tower = tiny.empty()
    label = load_weights(loaded, tmp_path / "D" / VISION_FILE)
    load_weights(loaded_tower, tmp_path / "D" / TEXT_FILE)
    for ours, theirs in ((loaded, network), (loaded_tower, tower)):
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value), key
    assert label["format"] == FORMAT
    assert label["origin"] == "model_final.pth"
    assert label["origin_sha256"] == file_digest(released) == report.origin_sha256
    assert label["text_sha256"] == content_digest(tower.state_dict())
    assert loaded.bbox_embed is loaded.transformer.decoder.bbox_embed


def test_report_counts(tiny, released: Path, tmp_path: Path) -> None:
    network, tower, layout = tiny.network, tiny.tower, tiny.layout
    report = import_checkpoint(released, "D", tmp_path / "D", layout=layout)
    assert report.dropped == ("iteration", "trainer")
    assert report.ignored == 1 + sum(is_recomputed(key) for key in network.state_dict())
    assert report.aliases == len(layout.aliases) > 0
    assert report.vision.parameters == sum(p.numel() for p in network.parameters())
    assert report.text.dtypes == {"float16": len(tower.state_dict())}
    assert json.loads(json.dumps(report.as_json()))["text"]["tensors"] == report.text.tensors
    stored, _ = read_safetensors(tmp_path / "D" / VISION_FILE)
    assert not set(stored) & set(layout.aliases)
    assert len(stored) == report.vision.tensors


def test_weights_without_a_wrapper_and_with_module_prefix(tiny, tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in tiny.official()["model"].items()}
    torch.save(state, tmp_path / "bare.pth")
    report = import_checkpoint(tmp_path / "bare.pth", "D", tmp_path / "D", layout=tiny.layout)
    assert report.dropped == ()


def test_a_model_is_replaced_only_on_request(tiny, released: Path, tmp_path: Path) -> None:
    folder = tmp_path / "D"
    import_checkpoint(released, "D", folder, layout=tiny.layout)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="--force replaces it"):
        import_checkpoint(released, "D", folder, layout=tiny.layout)
    import_checkpoint(released, "D", folder, layout=tiny.layout, replace=True)
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", TEXT_FILE, VISION_FILE]


def _synthetic(variant: str, path: Path) -> None:
    """Write every key at its full shape in a small file: all numbers of a tensor are one zero."""
    state = {
        key: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)
        for key, (shape, dtype) in MANIFESTS[variant]["state_dict"].items()
    }
    torch.save({"model": state, "trainer": {"optimizer": {}}, "iteration": 1}, path)


def test_full_size_d_passes_every_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _synthetic("D", tmp_path / "model_final.pth")
    written: dict[str, tuple[int, dict[str, str]]] = {}

    def weigh(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        written[path.name] = (sum(tensor.numel() for tensor in tensors.values()), metadata)

    monkeypatch.setattr(
        "ape_model.weights.state_dict.write_safetensors", weigh
    )  # 2.9 GB of zeros otherwise
    monkeypatch.setattr("ape_model.weights.import_official.content_digest", lambda _: "0" * 64)
    report = import_checkpoint(tmp_path / "model_final.pth", "D", tmp_path / "D")
    manifest = MANIFESTS["D"]
    assert report.vision.parameters == manifest["parameter_total_vision"]
    assert report.text.parameters == manifest["parameter_counts_unique"]["text"]
    assert report.text.bytes == 2 * report.text.parameters
    assert report.text.tensors == manifest["checkpoint_expectation"]["text_keys"]
    assert report.aliases == len(manifest["tied_parameters"])
    assert written[VISION_FILE][0] == report.vision.parameters
    assert written[TEXT_FILE][1]["text_tower"] == "eva02-bigE"


def test_full_key_set_of_d_is_written_and_read_back(tmp_path: Path) -> None:
    """The full key set on disk, every axis cut to three."""
    layout = Layout.of("D")
    cut = Layout(
        {key: tuple(min(n, 3) for n in shape) for key, shape in layout.vision.items()},
        {key: tuple(min(n, 3) for n in shape) for key, shape in layout.text.items()},
        layout.aliases,
        layout.text_tower,
    )
    state = {key: torch.full(shape, 0.5) for key, shape in cut.official.items()}
    torch.save({"model": state}, tmp_path / "model_final.pth")
    import_checkpoint(tmp_path / "model_final.pth", "D", tmp_path / "D", layout=cut)
    tensors, label = read_safetensors(tmp_path / "D" / VISION_FILE)
    assert set(tensors) | set(json.loads(label["aliases"])) == set(layout.vision)


# ---- damaged and foreign files


def _import_of(state: Any, tiny, tmp_path: Path) -> str:
    torch.save(state, tmp_path / "model_final.pth")
    with pytest.raises(CheckpointError) as error:
        import_checkpoint(tmp_path / "model_final.pth", "D", tmp_path / "D", layout=tiny.layout)
    assert not (tmp_path / "D").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model_final.pth"]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_key(tiny, tmp_path: Path) -> None:
    content = tiny.official()
    del content["model"]["model_vision.mask_conv.weight"]
    message = _import_of(content, tiny, tmp_path)
    assert "1 missing (model_vision.mask_conv.weight)" in message


def test_key_left_over(tiny, tmp_path: Path) -> None:
    content = tiny.official()
    content["model"]["model_vision.mystery"] = torch.ones(1)
    assert "1 left over (model_vision.mystery)" in _import_of(content, tiny, tmp_path)


def test_wrong_shape(tiny, tmp_path: Path) -> None:
    content = tiny.official()
    content["model"]["model_vision.mask_conv.weight"] = torch.ones(2, 3)
    message = _import_of(content, tiny, tmp_path)
    assert "1 of another shape (model_vision.mask_conv.weight [2, 3] and not [" in message


def test_second_names_must_agree(tiny, tmp_path: Path) -> None:
    content = tiny.official()
    key = "model_vision.bbox_embed.0.layers.0.bias"
    content["model"][key] = content["model"][key] + 1
    assert "must be equal and differ" in _import_of(content, tiny, tmp_path)


@pytest.mark.parametrize("content", [{}, {"model": {}}, [1, 2], "text", torch.ones(3)])
def test_pickles_without_weights(content: Any, tiny, tmp_path: Path) -> None:
    assert "holds no weights" in _import_of(content, tiny, tmp_path)


def test_something_else_among_the_weights(tiny, tmp_path: Path) -> None:
    assert "'note' where weights should be" in _import_of({"note": "hi"}, tiny, tmp_path)


class _Attack:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/ape_stream_was_attacked",)


def test_a_malicious_pickle_runs_nothing_and_is_named(tiny, tmp_path: Path) -> None:
    message = _import_of({"model": {"a": torch.ones(1)}, "hooks": _Attack()}, tiny, tmp_path)
    assert re.search(r"asks to run (posix|nt)\.system: it is not loaded", message)
    assert not Path("/tmp/ape_stream_was_attacked").exists()


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_truncated(share: float, released: Path, tmp_path: Path) -> None:
    whole = released.read_bytes()
    released.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"truncated: fetch it again|is damaged"):
        import_checkpoint(released, "D", tmp_path / "D")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}q\x00.", b"\x89PNG\r\n"])
def test_not_a_checkpoint_at_all(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a checkpoint.*model_final\.pth"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_zip_that_is_no_checkpoint(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(tmp_path / "x.npz")


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no file"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_folders_that_cannot_be(name: str, tiny, released: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        import_checkpoint(released, "D", tmp_path / name, layout=tiny.layout)
    assert "\n" not in str(error.value)
    assert "\0" not in str(error.value)


def test_unknown_variant_names_the_known(released: Path, tmp_path: Path) -> None:
    with pytest.raises(VariantError, match="A, B, C, D, Ti"):
        import_checkpoint(released, "E", tmp_path / "E")


def test_wrong_variant_names_the_right_one(tmp_path: Path) -> None:
    _synthetic("Ti", tmp_path / "model_final.pth")
    with pytest.raises(CheckpointError, match="it is variant Ti: use --variant Ti"):
        import_checkpoint(tmp_path / "model_final.pth", "D", tmp_path / "D")
