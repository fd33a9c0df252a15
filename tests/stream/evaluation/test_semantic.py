"""`ape-stream eval semantic`: hand-worked figures, and folders with faults."""

import json
import logging

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ape_stream.errors import ConfigError
from ape_stream.evaluation.command import app
from ape_stream.evaluation.labelled import LabelledImages, read_classes
from ape_stream.evaluation.semantic import Confusion, judge_semantic
from ape_stream.testing import OraclePerceiver
from ape_stream.types import Instances, Maps, PromptSet, SemanticMap

# Two rows of four pixels: classes 0, 1, 2; 9 is not scored.
TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 9]])
# Class k of the truth is k + 1 in a map; 0 is nothing.
FOUND = np.array([[1, 1, 2, 2], [1, 2, 0, 1]])


class Painter:
    """Gives every image the same semantic map."""

    def prepare(self, prompts):
        self.prompts = prompts

    def perceive(self, frames):
        return [Instances.empty(frame.size) for frame in frames]

    def perceive_with_maps(self, frames, wanted):
        assert wanted == {"semantic"}
        coarse = np.zeros((len(self.prompts), 1, 1), np.float32)
        maps = Maps(SemanticMap(FOUND.astype(np.uint16), coarse, (1.0, 1.0)))
        return [(Instances.empty(frame.size), maps) for frame in frames]


def test_figures_worked_by_hand():
    confusion = Confusion(3)
    confusion.add(TRUTH, FOUND)
    # Class 0: three of four right, one taken for class 1. Class 1: two right, one nothing.
    assert confusion.counts.tolist() == [[3, 1, 0, 0], [0, 2, 0, 1], [0, 0, 0, 0]]
    report = confusion.report(["sky", "road", "car"])
    assert report["iou"] == {"sky": 3 / 4, "road": 2 / 4, "car": None}
    assert report["miou"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert report["pixel_accuracy"] == pytest.approx(5 / 7)


def test_figures_add_up_over_images():
    twice, once = Confusion(3), Confusion(3)
    once.add(TRUTH, FOUND)
    for _ in range(2):
        twice.add(TRUTH, FOUND)
    assert (twice.counts == 2 * once.counts).all()
    assert Confusion(2).report(["a", "b"])["miou"] is None


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def folders(tmp_path):
    """Two good images, and one with each fault."""
    grey = np.full((2, 4, 3), 90)
    for name in ("good", "sub/good", "lonely", "size", "colour", "broken"):
        write(tmp_path / f"images/{name}.jpg", grey)
    for name in ("good", "sub/good"):
        write(tmp_path / f"labels/{name}.png", TRUTH)
    write(tmp_path / "labels/size.png", TRUTH[:, :3])
    write(tmp_path / "labels/colour.png", grey)
    write(tmp_path / "labels/cut.png", TRUTH)
    (tmp_path / "labels/broken.png").write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    write(tmp_path / "images/cut.jpg", noise)
    whole = (tmp_path / "images/cut.jpg").read_bytes()
    (tmp_path / "images/cut.jpg").write_bytes(whole[: len(whole) // 2])
    return LabelledImages(tmp_path / "images", tmp_path / "labels", 3)


def test_faults_are_named_once_and_counted_and_the_rest_is_judged(tmp_path, caplog, capfd):
    images = folders(tmp_path)
    with caplog.at_level(logging.WARNING):
        report = judge_semantic(Painter(), PromptSet.of("sky, road, car"), images)
    assert report["images"] == 2
    assert report["pixel_accuracy"] == pytest.approx(5 / 7)
    assert report["skipped"] == {
        "no label": 1,
        "label of another size": 1,
        "unreadable image": 1,
        "unreadable label": 2,
    }
    assert report["unscored"] == {"9": 2}
    lines = [record.getMessage() for record in caplog.records]
    for name in ("lonely.jpg", "size.png", "cut.jpg", "colour.png", "broken.png"):
        assert sum(name in line for line in lines) == 1, name
    assert sum("value 9" in line for line in lines) == 1
    said = capfd.readouterr().err.splitlines()
    assert all(line.startswith("warning: ") for line in said), "libjpeg says nothing of its own"


def test_what_cannot_be_judged_at_all_is_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        LabelledImages(tmp_path / "images", tmp_path, 3).paths()
    with pytest.raises(ConfigError, match="holds no images"):
        LabelledImages(tmp_path, tmp_path, 3).paths()
    write(tmp_path / "a.jpg", np.zeros((2, 4, 3)))
    lonely = LabelledImages(tmp_path, tmp_path, 3)
    with pytest.raises(ConfigError, match="can be judged: 1 no label"):
        judge_semantic(Painter(), PromptSet.of("sky, road, car"), lonely)
    with pytest.raises(ConfigError, match="OraclePerceiver makes no semantic maps"):
        judge_semantic(OraclePerceiver(), PromptSet.of("sky"), lonely)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"sky": 0}', "must be a list"),
        ('["sky", "sky"]', "twice"),
        ("[]", "no prompt"),
        ('[{"text": "sky", "stuf": true}]', "unknown key"),
    ],
)
def test_a_file_of_classes_that_cannot_be_used_is_refused(tmp_path, text, message):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(Exception, match=message):
        read_classes(tmp_path / "classes.json")


def test_the_command_judges_a_model(tmp_path):
    rows = np.linspace(0, 255, 32, dtype=np.uint8)
    write(tmp_path / "images/a.png", np.repeat(np.repeat(rows[:, None, None], 32, 1), 3, 2))
    write(tmp_path / "labels/a.png", (rows > 127)[:, None] * np.ones((1, 32)))
    (tmp_path / "classes.json").write_text('["sky", {"text": "grass", "stuff": true}]')
    given = ["semantic", "--canvas", "64", "--json"]
    for name in ("images", "labels", "classes"):
        given += [f"--{name}", str(tmp_path / (f"{name}.json" if name == "classes" else name))]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["model"] == "nano"
    assert np.sum(report["confusion"]) == 32 * 32
    assert np.sum(report["confusion"], axis=0)[2] == 0  # every pixel has a class
    assert set(report["iou"]) == {"sky", "grass"}
