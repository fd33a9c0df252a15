"""`ape-stream eval detection`: hand-worked figures, and data with faults."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ape_stream import masks, plugins
from ape_stream.datasets.read import read_instances
from ape_stream.errors import ConfigError
from ape_stream.evaluation.command import app
from ape_stream.evaluation.detection import judge_detection
from ape_stream.types import Instances

SIZE = (120, 240)
FIRST, SECOND = (0, 0, 100, 100), (110, 0, 210, 100)


class Finder:
    """Finds given (score, class, box, masked) in every image of a name."""

    def __init__(self, found, *, masked=True):
        self.found, self.masked = found, masked

    def prepare(self, prompts):
        self.prompts = prompts

    def perceive(self, frames):
        return [self._in(frame) for frame in frames]

    def _in(self, frame):
        rows = self.found.get(Path(frame.origin).stem, [])
        shapes = []
        for _, _, (x1, y1, x2, y2) in rows:
            plane = np.zeros(frame.size, np.bool_)
            plane[y1:y2, x1:x2] = True
            shapes.append(masks.crop(plane))
        return Instances(
            boxes=np.array([box for *_, box in rows], np.float32).reshape(-1, 4),
            scores=np.array([score for score, *_ in rows], np.float32),
            prompt_ids=np.array([kind for _, kind, _ in rows], np.int64),
            masks=tuple(shapes) if self.masked else None,
            size=frame.size,
        )


# Sorted by score: right, wrong, right; the last box covers .82 of its region.
FOUND = {
    "a": [(0.9, 0, FIRST), (0.7, 0, (110, 0, 210, 82))],
    "b": [(0.8, 0, (0, 0, 50, 50))],
}


def outline(box):
    x1, y1, x2, y2 = box
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def region(image, category, box, **more):
    x1, y1, x2, y2 = box
    return {"image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1]} | more


@pytest.fixture
def data(tmp_path):
    """Image a: two cats; image b: nothing but a dog. There is no owl."""

    def write(*, masked=True, more=()):
        for name in "ab":
            Image.new("RGB", SIZE[::-1]).save(tmp_path / f"{name}.png")
        images = [
            {"id": k, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}
            for k, name in enumerate("ab")
        ]
        rows = [(0, 1, FIRST), (0, 1, SECOND), (1, 2, (150, 20, 200, 100))]
        annotations = [
            region(*row, **({"segmentation": outline(row[2])} if masked else {})) for row in rows
        ]
        categories = [{"id": k, "name": name} for k, name in enumerate(("cat", "dog", "owl"), 1)]
        path = tmp_path / "data.json"
        table = {"images": images, "annotations": [*annotations, *more], "categories": categories}
        path.write_text(json.dumps(table))
        return path

    return write


# Precision 1 up to recall .5, 2/3 up to 1: of 101 recalls, 51 and 50.
CAT50 = (51 + 50 * 2 / 3) / 101
# The second cat counts at the IoU thresholds .5 to .8, seven of ten.
CAT = (7 * CAT50 + 3 * 51 / 101) / 10


def test_figures_worked_by_hand(data):
    report = judge_detection(Finder(FOUND), read_instances(data()))
    assert (report["images"], report["regions"]) == (2, 3)
    for kind in ("", "mask_"):
        assert report["by_class"]["cat"][f"{kind}ap50"] == pytest.approx(CAT50)
        assert report["by_class"]["cat"][f"{kind}ap"] == pytest.approx(CAT)
        assert report["by_class"]["dog"][f"{kind}ap50"] == 0  # not found
        assert report["by_class"]["owl"][f"{kind}ap50"] is None  # not there
        assert report[f"{kind}ap50"] == pytest.approx(CAT50 / 2)
        assert report[f"{kind}ap"] == pytest.approx(CAT / 2)


@pytest.mark.parametrize(("truth", "found"), [(True, False), (False, True)])
def test_without_masks_on_both_sides_there_are_figures_of_boxes_alone(data, truth, found):
    report = judge_detection(Finder(FOUND, masked=found), read_instances(data(masked=truth)))
    assert report["by_class"]["cat"].keys() == {"ap", "ap50"}
    assert report["ap50"] == pytest.approx(CAT50 / 2)


def test_what_lies_on_a_crowd_counts_neither_way(data):
    crowd = {"counts": [0, 60 * 120, 180 * 120], "size": list(SIZE)}  # columns 0 to 59
    more = [region(1, 1, (0, 0, 60, 120), segmentation=crowd, iscrowd=1)]
    report = judge_detection(Finder(FOUND), read_instances(data(more=more)))
    assert report["regions"] == 3
    assert report["by_class"]["cat"]["ap50"] == pytest.approx(1.0)  # the wrong one is on it


def test_things_are_asked_for_at_a_low_threshold(data):
    finder = Finder({})
    report = judge_detection(finder, read_instances(data()))
    assert [prompt.threshold for prompt in finder.prompts] == [0.01] * 3
    assert report["ap50"] == 0


def test_images_that_cannot_be_judged_are_named_and_counted(data, tmp_path, caplog):
    read = read_instances(data())
    (tmp_path / "a.png").write_bytes(b"no image")
    Image.new("RGB", (50, 50)).save(tmp_path / "b.png")
    with pytest.raises(ConfigError, match=r"judged: 1 unreadable image, 1 image of another size"):
        judge_detection(Finder(FOUND), read)
    assert "a.png" in caplog.text
    assert "b.png has another size" in caplog.text


def test_the_command_prints_json_or_a_table(data, monkeypatch):
    asked = []
    monkeypatch.setattr(plugins, "make_model", lambda *given: asked.append(given) or Finder(FOUND))
    words = ["detection", "--data", str(data()), "--model", "mine", "--canvas", "160"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["model"] == "mine"
    assert report["by_class"]["cat"]["ap50"] == pytest.approx(CAT50)
    assert asked[0] == ("mine", {"device": "auto", "canvas": 160})
    table = CliRunner().invoke(app, words).stdout
    assert f"{CAT50:.3f}" in table
    assert "not there" in table


def test_a_split_for_evaluation_is_preferred(tmp_path, monkeypatch):
    """Of a YOLO set with train and val, val is judged."""
    monkeypatch.setattr(plugins, "make_model", lambda *_: Finder({}))
    for part, count in (("train", 2), ("val", 1)):
        for kind in ("images", "labels"):
            (tmp_path / kind / part).mkdir(parents=True)
        for k in range(count):
            Image.new("RGB", (40, 30)).save(tmp_path / "images" / part / f"{k}.png")
            (tmp_path / "labels" / part / f"{k}.txt").write_text("0 .5 .5 .4 .4\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    words = ["detection", "--data", str(tmp_path / "data.yaml"), "--json"]
    report = json.loads(CliRunner().invoke(app, words).stdout)
    assert (report["split"], report["images"]) == ("val", 1)
    report = json.loads(CliRunner().invoke(app, [*words, "--split", "train"]).stdout)
    assert (report["split"], report["images"]) == ("train", 2)
