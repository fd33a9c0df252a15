from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from ape_model.errors import (
    CheckpointError,
    ModelMissingError,
    PromptTextError,
    VariantError,
)
from ape_model.io.safetensors_io import write_safetensors
from ape_model.loading import load_text_encoder, open_embedder, parse_device, parse_pooling
from ape_model.nano_config import NANO
from ape_model.text.clip_tower import Pooling
from ape_model.text.nano_tower import NanoText
from ape_model.weights import registry
from ape_model.weights.import_official import TEXT_FILE, VISION_FILE, import_checkpoint
from ape_model.weights.registry import check_name, list_models, models_root, resolve

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")


@pytest.fixture
def imported(tiny_as_d, released: Path, home: Path) -> Path:
    assert home
    folder = models_root() / "D"
    import_checkpoint(released, "D", folder, layout=tiny_as_d.layout)
    return folder


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "official_vocabulary.json").write_text('["Traffic  Light"]')
    monkeypatch.setattr(registry, "_ASSETS", folder)
    return folder


def _ship_nano(assets: Path) -> None:
    torch.manual_seed(0)
    words = json.dumps(["red", "apple"])
    write_safetensors(assets / "nano_text.safetensors", NanoText(NANO.text).state_dict(), {
        "words": words
    })  # fmt: skip
    save_file({"a": torch.ones(1)}, assets / "nano.safetensors")
    (assets / "nano_vocabulary.json").write_text('["red apple"]')


def test_store_lies_where_xdg_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models_root() == home / "data" / "ape_stream" / "models"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(home))
    assert models_root() == home / ".local" / "share" / "ape_stream" / "models"


def test_an_imported_model_by_name_folder_and_file(imported: Path, assets: Path) -> None:
    assert assets
    by_name = resolve("D")
    assert by_name.vision == imported / VISION_FILE
    assert by_name.text == imported / TEXT_FILE
    assert (by_name.variant, by_name.text_tower) == ("D", "eva02-bigE")
    assert by_name.vocabulary == {"traffic light"}
    for way in ("d", imported, str(imported), imported / VISION_FILE):
        assert resolve(way) == by_name


def test_the_shipped_names_are_clean_and_many(imported: Path) -> None:
    assert imported
    names = resolve("D").vocabulary
    assert {"person", "traffic light", "teddy bear"} <= names
    assert len(names) == 80


def test_without_text_weights(imported: Path) -> None:
    (imported / TEXT_FILE).unlink()
    files = resolve("D")
    assert files.text is None
    with pytest.raises(PromptTextError, match="no text weights"):
        open_embedder(files, CPU).embed(["cat"])
    with pytest.raises(PromptTextError, match="came without text weights"):
        load_text_encoder(files, CPU, torch.float32)


def test_text_of_another_model_is_noticed(imported: Path) -> None:
    write_safetensors(imported / TEXT_FILE, {"a": torch.ones(1)}, {"text_sha256": "other"})
    with pytest.raises(CheckpointError, match="belongs to another model"):
        resolve("D")


def test_models_that_are_not_there(home: Path) -> None:
    with pytest.raises(ModelMissingError, match="`ape-stream models pull Ti`"):
        resolve("ti")
    with pytest.raises(VariantError, match="choose one of nano, A, B, C, D, Ti"):
        resolve("yolo")
    with pytest.raises(VariantError, match="no folder"):
        resolve(home / "nowhere" / "vision.safetensors")
    with pytest.raises(CheckpointError, match="no file"):
        resolve(home)


def test_a_foreign_safetensors_file(home: Path) -> None:
    save_file({"a": torch.ones(1)}, home / "other.safetensors")
    with pytest.raises(CheckpointError, match="import the checkpoint first"):
        resolve(home / "other.safetensors")


def test_list_says_what_is_where(imported: Path, assets: Path) -> None:
    lines = {line.name: line for line in list_models()}
    assert list(lines) == ["nano", "D", "A", "B", "C", "Ti"]
    assert lines["nano"].state == "not here"
    assert lines["D"].state == "imported"
    assert lines["D"].vision_bytes == (imported / VISION_FILE).stat().st_size
    assert lines["Ti"].folder is None
    _ship_nano(assets)
    (imported / VISION_FILE).write_bytes(b"damaged")
    lines = {line.name: line for line in list_models()}
    assert lines["nano"].state == "built in"
    assert lines["D"].state == "damaged"
    assert json.dumps([asdict(line) for line in lines.values()])


def test_built_in(assets: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"nano\.safetensors is missing"):
        resolve("nano")
    _ship_nano(assets)
    files = resolve("Nano")
    assert (files.name, files.variant, files.text_tower) == ("nano", "nano", "nano")
    assert files.vocabulary == {"red apple"}


def test_nano_reads_prompts(assets: Path, home: Path) -> None:
    assert home
    _ship_nano(assets)
    embedder = open_embedder(resolve("nano"), CPU)
    rows = embedder.embed(["Red Apple", "apple", "red apple"])
    assert torch.equal(rows[0], rows[2])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    with pytest.raises(PromptTextError, match="holds no word, and nano reads nothing else"):
        embedder.embed(["😀"])


def test_nano_encodes_many_in_batches(assets: Path) -> None:
    _ship_nano(assets)
    encoder = load_text_encoder(resolve("nano"), CPU, torch.float32)
    heard: list[int] = []
    rows = encoder.encode([f"apple {n}" for n in range(600)], heard.append)
    assert heard == [256, 512, 600]
    torch.testing.assert_close(rows[599:], encoder.encode(["apple 599"]))


def test_the_towers_weights_are_loaded_as_they_were(imported: Path, tiny_as_d) -> None:
    assert imported
    encoder = load_text_encoder(resolve("D"), CPU, torch.float32)
    ours = encoder.tower.state_dict()
    for key, value in tiny_as_d.tower.state_dict().items():
        assert torch.equal(ours[key], value.float()), key


def test_pooling_reaches_the_tower_and_the_cache(imported: Path) -> None:
    assert imported
    end = open_embedder(resolve("D"), CPU).embed(["a cat"])
    mean = open_embedder(resolve("D"), CPU, pooling=Pooling.MEAN).embed(["a cat"])
    assert not torch.allclose(end, mean)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "nano", "NANO", ".hidden", "a b", "é"])
def test_names_that_no_model_may_have(name: str) -> None:
    with pytest.raises(VariantError):
        check_name(name)


def test_names_that_a_model_may_have() -> None:
    for name in ("D", "my-model_2.1"):
        assert check_name(name) == name


def test_devices_and_poolings_by_name() -> None:
    assert parse_device("cpu") == CPU
    assert parse_device("auto").type in ("cpu", "cuda")
    assert parse_pooling("mean") is Pooling.MEAN
    for wrong in ("tpu9", "meta", "cuda:99:1"):
        with pytest.raises(VariantError, match="choose auto"):
            parse_device(wrong)
    with pytest.raises(VariantError, match="eot, mean"):
        parse_pooling("max")
