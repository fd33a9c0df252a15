from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from ape_model.config import NANO
from ape_model.errors import (
    BankError,
    CheckpointError,
    ModelError,
    ModelMissingError,
    PromptTextError,
    VariantError,
)
from ape_model.io.checkpoint_reader import file_digest
from ape_model.io.safetensors_io import read_safetensors, write_safetensors
from ape_model.loading import load_text_encoder, open_embedder, parse_pooling
from ape_model.text.clip_tower import Pooling
from ape_model.text.embedding_file import EmbeddingFile
from ape_model.text.nano_tower import NanoText
from ape_model.weights import registry
from ape_model.weights.import_official import TEXT_FILE, VISION_FILE, import_checkpoint
from ape_model.weights.registry import check_name, find_model, list_models, models_root
from ape_stream.devices import parse_device

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
    monkeypatch.setattr(registry, "ASSETS", folder)
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
    by_name = find_model("D")
    assert by_name.vision == imported / VISION_FILE
    assert by_name.text == imported / TEXT_FILE
    assert (by_name.variant, by_name.text_tower) == ("D", "eva02-bigE")
    assert by_name.vocabulary == {"traffic light"}
    for way in ("d", imported, str(imported), imported / VISION_FILE):
        assert find_model(way) == by_name


def test_the_shipped_names_are_clean_and_many(imported: Path) -> None:
    assert imported
    names = find_model("D").vocabulary
    assert {"person", "traffic light", "teddy bear"} <= names
    assert len(names) == 80


def test_without_text_weights(imported: Path) -> None:
    (imported / TEXT_FILE).unlink()
    files = find_model("D")
    assert files.text is None
    with pytest.raises(PromptTextError, match="no text weights"):
        open_embedder(files, CPU).embed(["cat"])
    with pytest.raises(PromptTextError, match="came without text weights"):
        load_text_encoder(files, CPU, torch.float32)


def test_text_of_another_model_is_noticed(imported: Path) -> None:
    write_safetensors(imported / TEXT_FILE, {"a": torch.ones(1)}, {"text_sha256": "other"})
    with pytest.raises(CheckpointError, match="belongs to another model"):
        find_model("D")


def test_models_that_are_not_there(home: Path) -> None:
    with pytest.raises(ModelMissingError, match="`ape-stream models pull Ti`"):
        find_model("ti")
    with pytest.raises(VariantError, match="choose one of nano, street, A, B, C, D, Ti"):
        find_model("yolo")
    with pytest.raises(VariantError, match="no folder"):
        find_model(home / "nowhere" / "vision.safetensors")
    with pytest.raises(CheckpointError, match="no file"):
        find_model(home)


def test_a_foreign_safetensors_file(home: Path) -> None:
    save_file({"a": torch.ones(1)}, home / "other.safetensors")
    with pytest.raises(CheckpointError, match="import the checkpoint first"):
        find_model(home / "other.safetensors")


def test_list_says_what_is_where(imported: Path, assets: Path) -> None:
    lines = {line.name: line for line in list_models()}
    assert list(lines) == ["nano", "street", "D", "A", "B", "C", "Ti"]
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
    told = [lines[name].knows for name in ("nano", "street", "C")]
    assert len(set(told)) == 3
    assert all(told)


def test_built_in(assets: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"nano\.safetensors is missing"):
        find_model("nano")
    _ship_nano(assets)
    files = find_model("Nano")
    assert (files.name, files.variant, files.text_tower) == ("nano", "nano", "nano")
    assert files.vocabulary == {"red apple"}
    assert not files.stuff


def test_built_in_with_its_names_in_the_header(assets: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"street\.safetensors is missing"):
        find_model("street")
    _ship_nano(assets)
    label = {"names": '["Car", "road"]', "stuff": '["Road"]'}
    save_file({"a": torch.ones(1)}, assets / "street.safetensors", label)
    nano, street = find_model("nano"), find_model("Street")
    assert (street.name, street.variant, street.text_tower) == ("street", "nano", "nano")
    assert (street.vocabulary, street.stuff) == ({"car", "road"}, {"road"})
    # One text tower: a prompt embedded for one of them is in the cache for the other.
    assert (street.text, street.text_digest) == (nano.text, nano.text_digest)


def test_the_digest_of_the_shipped_text_tower_is_recorded() -> None:
    files = find_model("nano")
    assert files.text is not None
    assert files.text_digest == file_digest(files.text)


def test_nano_runs_from_a_bank_without_its_text_file(assets: Path, home: Path) -> None:
    _ship_nano(assets)
    bank, path = open_embedder(find_model("nano"), CPU), home / "bank.safetensors"
    EmbeddingFile(("red apple",), bank.embed(["red apple"]), bank.space).save(path)
    (assets / "nano_text.safetensors").unlink()
    files = find_model("nano")
    assert files.text is None
    robot = open_embedder(files, CPU, bank=path, cache=home / "empty")
    assert torch.equal(robot.embed(["Red Apple"]), bank.embed(["red apple"]))
    with pytest.raises(PromptTextError, match="no embedding of 'taxi' and no text weights here"):
        robot.embed(["taxi"])


def test_a_warm_cache_does_not_read_nanos_text_file(assets: Path, home: Path) -> None:
    assert home
    _ship_nano(assets)
    cold = open_embedder(find_model("nano"), CPU).embed(["red apple"])
    (assets / "nano_text.safetensors").write_bytes(b"damaged")
    assert torch.equal(open_embedder(find_model("nano"), CPU).embed(["red apple"]), cold)
    with pytest.raises(CheckpointError, match=r"nano_text\.safetensors is damaged"):
        open_embedder(find_model("nano"), CPU).embed(["taxi"])


def test_a_bank_of_another_width_is_refused_by_name(imported: Path, tmp_path: Path) -> None:
    assert imported
    files, path = find_model("D"), tmp_path / "wide.safetensors"
    space = open_embedder(files, CPU).space
    EmbeddingFile(("cat",), torch.ones(1, 17), space).save(path)
    with pytest.raises(BankError, match=r"wide\.safetensors holds .* 17 numbers and .* D takes 16"):
        open_embedder(files, CPU, bank=path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "~nobody_of_this_name/model", "x/" * 3000])
def test_names_that_no_model_can_have_are_one_line(name: str, home: Path) -> None:
    assert home
    with pytest.raises((VariantError, ModelMissingError)) as error:
        find_model(name)
    assert "\n" not in str(error.value)
    assert "\0" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "E"},
        {"names": "["},
        {"names": "[1]"},
        {"names": "[" * 100_000},
        {"text_tower": None},
    ],
)
def test_a_damaged_header_is_one_line(change: dict[str, str | None], imported: Path) -> None:
    tensors, label = read_safetensors(imported / VISION_FILE)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    changed = {key: value for key, value in (label | change).items() if value is not None}
    write_safetensors(imported / VISION_FILE, tensors, changed)
    with pytest.raises(CheckpointError, match=r"vision\.safetensors is damaged") as error:
        find_model("D")
    assert "\n" not in str(error.value)


def test_nano_reads_prompts(assets: Path, home: Path) -> None:
    assert home
    _ship_nano(assets)
    embedder = open_embedder(find_model("nano"), CPU)
    rows = embedder.embed(["Red Apple", "apple", "red apple"])
    assert torch.equal(rows[0], rows[2])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    with pytest.raises(PromptTextError, match="holds no word, and nano reads nothing else"):
        embedder.embed(["😀"])


def test_nano_encodes_many_in_batches(assets: Path) -> None:
    _ship_nano(assets)
    encoder = load_text_encoder(find_model("nano"), CPU, torch.float32)
    heard: list[int] = []
    rows = encoder.encode([f"apple {n}" for n in range(600)], heard.append)
    assert heard == [256, 512, 600]
    torch.testing.assert_close(rows[599:], encoder.encode(["apple 599"]))


def test_the_towers_weights_are_loaded_as_they_were(imported: Path, tiny_as_d) -> None:
    assert imported
    encoder = load_text_encoder(find_model("D"), CPU, torch.float32)
    ours = encoder.tower.state_dict()
    for key, value in tiny_as_d.tower.state_dict().items():
        assert torch.equal(ours[key], value.float()), key


def test_pooling_reaches_the_tower_and_the_cache(imported: Path) -> None:
    assert imported
    end = open_embedder(find_model("D"), CPU).embed(["a cat"])
    mean = open_embedder(find_model("D"), CPU, pooling=Pooling.MEAN).embed(["a cat"])
    assert not torch.allclose(end, mean)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "nano", "NANO", ".hidden", "a b", "é", "a\0", "x" * 201]
)
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
        with pytest.raises(ModelError, match="choose auto"):
            parse_device(wrong)
    with pytest.raises(VariantError, match="eot, mean"):
        parse_pooling("max")
