"""Whole recipes on tiny copies of their data sets, and what is said when they do not fit."""

import json
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from ape_model.config import PRESETS
from ape_model.training.command import RECIPES, train
from ape_model.training.errors import DataError, RecipeError, TrainingError
from ape_model.training.official import check
from ape_model.training.official.batches import OfficialBatches
from ape_model.training.official.check import check_recipe, shrunk_config, shrunk_recipe
from ape_model.training.official.miniature import write_miniature_data
from ape_model.training.official.prompts import OfficialPrompts
from ape_model.training.official.recipe import read_official_recipe
from ape_model.training.official.records import read_row

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


@pytest.mark.parametrize(("model", "rounds"), [("D", 2), ("A", 2)])
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
    assert len(lines) == len(rows) + 1


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
