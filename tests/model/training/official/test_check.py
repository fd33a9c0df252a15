"""Whole recipes on tiny copies of their data sets, and what is said when they do not fit."""

import json
from dataclasses import replace

import pytest
import torch
import typer
from typer.testing import CliRunner

from ape_model.config import PRESETS
from ape_model.io.safetensors_io import read_safetensors
from ape_model.network.ape import Ape
from ape_model.training.command import RECIPES, train
from ape_model.training.errors import DataError, RecipeError, TrainingError
from ape_model.training.official import check, run
from ape_model.training.official.batches import OfficialBatches
from ape_model.training.official.check import (
    check_recipe,
    encode_at_random,
    shrunk_config,
    shrunk_recipe,
)
from ape_model.training.official.miniature import write_miniature_data
from ape_model.training.official.prompts import OfficialPrompts
from ape_model.training.official.recipe import read_official_recipe
from ape_model.training.official.records import read_row
from ape_model.training.official.run import train_official
from ape_model.training.train import TrainOptions
from ape_model.weights.import_official import FORMAT, VISION_FILE
from ape_model.weights.registry import find_model
from ape_model.weights.state_dict import aliases_of, save_weights

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(train)


def recipe(model):
    return read_official_recipe(RECIPES / f"ape_{model}.toml")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The data sets of D, and the folder of all."""
    root = tmp_path_factory.mktemp("data")
    small = shrunk_recipe(recipe("D"), 3)
    write_miniature_data(small, root)
    return small, [read_row(row, root) for row in small.data], root


@pytest.mark.timeout(600)  # a few seconds on a machine of one's own
@pytest.mark.parametrize(("model", "rounds"), [("D", 1), ("A", 2)])
def test_every_row_is_learnt_and_a_resumed_run_is_the_same(model, rounds):
    lines = []
    found = check_recipe(recipe(model), lines.append, rounds)
    rows = recipe(model).data
    assert [one.name for one in found] == [row.name for row in rows]
    for one, row in zip(found, rows, strict=True):
        # Class and boxes of two layers; masks of the last one, and the first stage.
        layers = len({"class", "bbox", "giou"} & set(row.decoder)) * 2
        masks = len({"mask", "dice"} & set(row.decoder))
        assert one.terms == layers + masks + len(row.encoder)
        assert one.after < one.before
    assert lines[-1].endswith("equal to the unbroken run, bit for bit")
    assert len(lines) == len(rows) + 2


def test_a_run_that_resumes_wrongly_is_found_out(monkeypatch):
    small = replace(recipe("D"), data=recipe("D").data[6:7])
    monkeypatch.setattr(OfficialPrompts, "load", lambda *_: None)  # earlier phrases are lost
    with pytest.raises(TrainingError, match="the resumed run differs"):
        check_recipe(small, lambda _: None, 8)


def test_a_loss_that_does_not_fall_is_found_out(monkeypatch):
    small = replace(recipe("D"), data=recipe("D").data[6:7])
    monkeypatch.setattr(check, "_RATE", 1e-30)
    with pytest.raises(TrainingError, match="does not fall on gqa_region_train"):
        check_recipe(small, lambda _: None, 4)


def test_rows_are_read_as_the_real_files_are(data):
    small, rows, root = data
    by_name = {row.row.name: row for row in rows}
    lvis = by_name["lvis_v1_train+coco_panoptic_separated"]
    assert (len(lvis.names), lvis.things) == (1256, 1203)
    assert lvis.names[0] == "thing 0 of lvis_v1_train+coco_panoptic_separated"  # a synonym
    assert lvis.names[1203] == "stuff 0"
    assert lvis[0].path == root / "coco/train2017/000000000001.jpg"
    assert lvis[0].stuff_map == root / "coco/panoptic_stuff_train2017/000000000001.png"
    sa1b = by_name["sa1b"]
    assert sa1b[0].annotations
    assert all(one.shape["counts"] for one in sa1b[0].annotations)
    assert not sa1b.frequencies().any()  # its regions are read with each image
    assert all(one.shape is None for one in by_name["objects365_train_fixname"][0].annotations)
    assert "box on the" in by_name["gqa_region_train"][0].annotations[0].phrase
    assert len(rows) == len(small.data)


def test_processes_share_a_batch(data):
    small, rows, _ = data
    config = shrunk_config(PRESETS["D"])
    whole = OfficialBatches(small, rows, config)
    parts = [OfficialBatches(small, rows, config, rank=k, processes=2) for k in (0, 1)]
    for step in range(4):
        both = [part[step] for part in parts]
        assert {one.dataset for one in both} == {whole[step].dataset}
        sizes = [size for one in both for size in one.sizes]
        assert tuple(sizes) == whole[step].sizes
    with pytest.raises(RecipeError, match="a batch of 2 images for 3 processes"):
        OfficialBatches(small, rows, config, processes=3)


def rewritten(root, row, change):
    path = root / row.annotations
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table["categories"].pop(), "has 364 classes, the recipe 365"),
        (lambda table: table["annotations"].clear(), "has no image to learn from"),
        (lambda table: table.pop("images"), "is no file of instances"),
        (lambda table: table["images"][0].update(file_name="../a.jpg"), "outside of its folder"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path, change, message):
    row = recipe("D").data[1]
    write_miniature_data(replace(recipe("D"), data=(row,)), tmp_path)
    rewritten(tmp_path, row, change)
    with pytest.raises(DataError, match=message) as caught:
        read_row(row, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "ape_D", "--out", "out"], "ape_D needs --data, the folder of all data sets"),
        (["--config", "nano", "--check"], "--check is for recipes of released models"),
        (["--config", "ape_D"], "give --out"),
    ],
)
def test_the_command_says_what_is_missing(words, message):
    result = CliRunner().invoke(app, words)
    assert result.exit_code != 0
    assert message in " ".join((result.output + str(result.exception)).split())


TINY = """
model = "D"
init = "none"
mixture = "mixed"
batch = 2
workers = 0
save_every = 1
[schedule]
steps = 3
drop_at = 2
warm_up = 1
[augmentation]
canvas = 64
scale = [0.6, 1.0]
scale_with_crop = [0.6, 2.0]
[[data]]
name = "gqa_region_train"
annotations = "gqa/gqa_region_train.json"
images = "gqa/images"
classes = 256
prompts = "phrase"
[[data]]
name = "visualgenome_150_box_train"
annotations = "visualgenome/annotations/visualgenome_150_box_train.json"
images = "visualgenome"
classes = 150
"""


class _Tower:
    encode = staticmethod(encode_at_random(32))


@pytest.fixture
def model(tmp_path, monkeypatch, home):  # noqa: ARG001 (an empty cache)
    """A folder as `models import` writes it, of a tiny network in the shape of D."""
    config = shrunk_config(PRESETS["D"])
    monkeypatch.setitem(PRESETS, "D", config)
    monkeypatch.setattr(run, "load_text_encoder", lambda *_: _Tower)
    network = Ape(config)
    label = {"format": FORMAT, "variant": "D", "part": "vision", "text_sha256": "d" * 64}
    label["text_tower"] = config.text_tower
    folder = tmp_path / "model"
    save_weights(folder / VISION_FILE, network.state_dict(), aliases_of(network), label)
    return folder


def test_a_run_on_the_real_tree_ends_as_a_model_and_goes_on_from_its_state(tmp_path, model):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    write_miniature_data(read_official_recipe(path), tmp_path / "data")
    lines = []
    for out, steps in (("whole", None), ("cut", 1), ("cut", None)):
        options = TrainOptions(path, tmp_path / out, tmp_path / "data", init=str(model))
        options = replace(options, steps=steps, device="cpu")
        train_official(options, lines.append)
    assert "gqa_region_train: 4 images, phrases" in lines
    assert "visualgenome_150_box_train: 4 images, 150 names" in lines
    assert "resuming at batch 1" in lines
    whole, cut, first = (
        read_safetensors(folder / VISION_FILE)[0]
        for folder in (tmp_path / "whole", tmp_path / "cut", model)
    )
    assert whole.keys() == first.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    assert not all(torch.equal(whole[key], first[key]) for key in whole)
    assert find_model(str(tmp_path / "whole")).variant == "D"
    assert "thing 3 of visualgenome_150_box_train" in find_model(tmp_path / "whole").vocabulary
    with pytest.raises(RecipeError, match="nano is a nano; tiny trains another"):
        train_official(TrainOptions(path, tmp_path / "x", tmp_path, init="nano"), lines.append)
