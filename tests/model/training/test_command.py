"""`ape-stream train` as a user meets it: what goes wrong is one line, what comes out is a model."""

import json

import cv2
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from ape_model.config import NANO
from ape_model.errors import CheckpointError
from ape_model.io.safetensors_io import read_metadata, read_safetensors
from ape_model.loading import load_network, load_text_encoder
from ape_model.perceiver import ApePerceiver
from ape_model.training.command import RECIPES, train
from ape_model.training.data.coco_dataset import CocoBatches
from ape_model.training.data.loader import load_batches
from ape_model.training.data.world_dataset import Canvas, Phase
from ape_model.training.errors import DataError
from ape_model.training.settings import EngineConfig
from ape_model.weights.import_official import FORMAT
from ape_model.weights.registry import find_model
from ape_model.weights.state_dict import save_weights
from ape_stream.datasets.coco import read_coco
from ape_stream.values.prompts import Prompt, PromptSet

RECIPE = """
steps = 2
warm_up = 0
workers = {workers}
{more}
[[phase]]
first = 0
canvases = [{{height = 64, width = 64, batch = 1, most = 2}}]
"""
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(train)


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def recipe(tmp_path):
    def write(more="", workers=0):
        path = tmp_path / "recipe.toml"
        path.write_text(RECIPE.format(more=more, workers=workers))
        return path

    return write


@pytest.fixture
def images(tmp_path):
    """Two images with a thing and a stuff each, as COCO with phrases."""
    images, annotations = [], []
    for k in range(2):
        pixels = np.full((48, 64, 3), 60 + 20 * k, np.uint8)
        pixels[8:32, 8:32] = 250
        cv2.imwrite(str(tmp_path / f"{k}.png"), pixels)
        images.append({"id": k, "file_name": f"{k}.png", "height": 48, "width": 64})
        square = {"bbox": [8, 8, 24, 24], "segmentation": [[8, 8, 32, 8, 32, 32, 8, 32]]}
        ground = {"bbox": [0, 34, 64, 14]}
        annotations.append(square | {"image_id": k, "category_id": 1, "phrases": ["white tile"]})
        annotations.append(ground | {"image_id": k, "category_id": 2, "phrases": ["dark ground"]})
    categories = [{"id": 1, "name": "sun dial"}, {"id": 2, "name": "tarmac", "isthing": 0}]
    path = tmp_path / "data.json"

    def write(**changes):
        table = {"images": images, "annotations": annotations, "categories": categories}
        path.write_text(json.dumps(table | changes))
        return path

    return write


def test_a_fine_tuned_model_is_a_model_like_any_other(recipe, images, tmp_path):
    out = tmp_path / "mine"
    done = call("--data", images(), "--init", "nano", "--config", recipe(), "--out", out)
    assert done.exit_code == 0, done.output
    assert "text tower: effective rank 48.5 (at least 20)" in done.output
    assert "2 images, left out: nothing" in done.output
    assert "things_ap50" in done.output
    assert "stuff_ap50" in done.output
    files = find_model(out)
    assert {"sun dial", "tarmac", "dog face"} <= files.vocabulary
    assert files.stuff == {"tarmac"}
    perceiver = ApePerceiver(model=str(out))
    perceiver.prepare(PromptSet((Prompt("Tarmac"), Prompt("sun dial"), Prompt("sky"))))
    assert perceiver._stuff.tolist() == [True, False, True]
    names = load_text_encoder(files, torch.device("cpu"), torch.float32).encode(["sun dial"])
    shipped = load_text_encoder(find_model("nano"), torch.device("cpu"), torch.float32)
    assert names.equal(shipped.encode(["sun dial"]))
    load_network(files, torch.device("cpu"))
    first, *_ = (json.loads(line) for line in (out / "log.jsonl").read_text().splitlines())
    assert first["text_rank"] > 20
    assert first["text_cosine"] < 0.7
    # And it may be the beginning of the next one.
    again = call("--data", images(), "--init", out, "--config", recipe(), "--out", out / "more")
    assert again.exit_code == 0, again.output
    assert find_model(out / "more").stuff == {"tarmac"}


def test_own_images_decide_canvas_and_score(images, tmp_path):
    out = tmp_path / "mine"
    done = call("--data", images(), "--out", out, "--steps", 1)
    assert done.exit_code == 0, done.output
    assert "1 of them are held back for the score" in done.output
    assert "canvas 160x128, 8 images a step" in done.output  # 4:3, a region of .26 of its sides
    assert "before, data.json: things_ap50" in done.output
    assert "before -> after, data.json: things_ap50 " in done.output
    network = load_network(find_model(out), torch.device("cpu"))
    assert network.config.canvas == 160
    assert load_network(find_model("nano"), torch.device("cpu")).config.canvas == 256
    again = call("--data", images(), "--out", out, "--steps", 1, "--validation", "nowhere.json")
    assert "nowhere.json is no COCO file" in refused(again)


def test_the_score_may_be_taken_on_another_file(recipe, images, tmp_path):
    data = images()
    words = ("--validation", data, "--config", recipe("report_every = 1"), "--out", tmp_path / "o")
    done = call("--data", data, *words)
    assert done.exit_code == 0, done.output
    assert "2 images for the score" in done.output
    assert "step 1/2: loss " in done.output
    assert " left" in done.output


@pytest.mark.parametrize("side", ["8", "wide", "1e9"])
def test_a_header_with_a_senseless_canvas_is_refused(tmp_path, side):
    shipped = find_model("nano")
    tensors, label = read_safetensors(shipped.vision)
    label |= {"format": FORMAT, "part": "vision", "variant": "nano", "text_tower": "nano"}
    label |= {"text_sha256": shipped.text_digest, "canvas": side}
    save_weights(tmp_path / "vision.safetensors", {"a": tensors.popitem()[1]}, {}, label)
    with pytest.raises(CheckpointError, match=r"vision\.safetensors"):
        find_model(tmp_path)


def test_several_data_sets_in_one_run(recipe, images, tmp_path):
    images()
    more = """
[[data]]
[[data]]
source = "data.json"
federated = 1
[[data]]
source = "data.json"
prompts = "phrase"
memory = 4
[[data]]
source = "data.json"
prompts = "expression"
"""
    path = recipe()
    path.write_text(path.read_text().replace("steps = 2", "steps = 16\nreport_every = 1") + more)
    done = call("--config", path, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "step 16, world: things_ap50" in done.output
    assert "step 16, data.json: things_ap50" in done.output
    state = torch.load(tmp_path / "out" / "state.pt", weights_only=True)
    assert [tuple(rows.shape) for rows in state["memory"]] == [
        (0, 128),
        (0, 128),
        (4, 128),
        (0, 128),
    ]
    assert state["memory"][2].any(1).sum() == 2  # both phrases, once each


def refused(done):
    """The one line on stderr."""
    assert done.exit_code == 2, done.output
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.output
    return lines[0]


def test_images_that_break_off_end_the_run_in_one_line(recipe, images, tmp_path):
    data = images()
    for k in range(2):
        (tmp_path / f"{k}.png").write_bytes((tmp_path / f"{k}.png").read_bytes()[:50])
    done = call("--data", data, "--config", recipe(), "--out", tmp_path / "out")
    assert "png cannot be read as an image" in refused(done)


def test_images_that_break_off_while_workers_read_end_it_in_one_line(images, tmp_path):
    data = images()
    phases = (Phase(0, (Canvas(64, 64, 1),)),)
    batches = CocoBatches(read_coco(data), phases, seed=0, network=NANO, steps=2)
    for k in range(2):
        (tmp_path / f"{k}.png").unlink()
    with pytest.raises(DataError, match="cannot be read as an image") as caught:
        next(load_batches(batches, 0, EngineConfig(2, workers=1)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": []}, "data.json has no annotations"),
        ({"images": [{"id": 0, "file_name": "x.png", "height": 4, "width": 4}]}, "image row 0"),
        ({"annotations": [{"image_id": 0, "category_id": 1, "bbox": [90, 0, 5, 5]}]}, "1 outside"),
        ({"annotations": [{"image_id": 0, "category_id": 1, "bbox": [0, 0, 0, 0]}]}, "1 box with"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "A"}]}, "category row 1"),
    ],
)
def test_bad_data_is_refused_in_one_line(recipe, images, tmp_path, changes, message):
    data = images(**changes)
    done = call("--data", data, "--config", recipe(), "--out", tmp_path / "out")
    line = refused(done)
    assert message in line
    assert "data.json" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nowhere.json"), "nowhere.json is no COCO file"),
        (("--config", "nowhere.toml"), "nowhere.toml is no file and no recipe that ships"),
        (("--validation", "a.json"), "--validation is the score of --data: give both"),
        (("--config", RECIPES / "finetune.toml"), "table without source: give --data"),
        (("--images", "."), "--images is the folder of the images of --data"),
        (("--init", "nothing"), "no model and no folder 'nothing'"),
        (("--device", "tpu"), "no device 'tpu'"),
    ],
)
def test_bad_words_are_refused_in_one_line(tmp_path, words, message):
    assert message in refused(call("--out", tmp_path / "out", *words))


def test_data_on_the_command_line_and_in_the_recipe_exclude_each_other(recipe, images, tmp_path):
    path = recipe()
    path.write_text(path.read_text() + "[[data]]\nsource = 'data.json'\n")
    line = refused(call("--config", path, "--data", images(), "--out", tmp_path))
    assert "has [[data]] tables of its own" in line


def test_a_run_that_diverges_ends_in_one_line_and_keeps_its_last_state(recipe, images, tmp_path):
    out = tmp_path / "out"
    path = recipe("learning_rate = 1e30\nsave_every_s = 0.0\nreport_every = 1")
    path.write_text(path.read_text().replace("steps = 2", "steps = 9"))
    line = refused(call("--config", path, "--data", images(), "--out", out))
    assert "lower the learning rate" in line
    assert "loss is NaN or infinite at step" in line


def test_a_damaged_state_is_refused_in_one_line(recipe, images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state.pt").write_bytes(b"not a state")
    line = refused(call("--config", recipe(), "--data", images(), "--out", tmp_path / "out"))
    assert "state.pt is damaged" in line


def test_a_text_tower_that_distinguishes_nothing_is_refused_before_any_step(
    recipe, images, tmp_path
):
    shipped = find_model("nano").text
    tensors, _ = read_safetensors(shipped)
    flat = {key: torch.zeros_like(value) for key, value in tensors.items()}
    flat["out.bias"] = torch.ones_like(flat["out.bias"])
    save_weights(
        tmp_path / "flat.safetensors", flat, {}, {"words": read_metadata(shipped)["words"]}
    )
    path = recipe('text = "flat.safetensors"')
    line = refused(call("--config", path, "--data", images(), "--out", tmp_path / "out"))
    assert "the text tower does not distinguish names: effective rank" in line
    assert not (tmp_path / "out").exists()
