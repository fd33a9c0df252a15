"""A user's data set: every fault is named or counted."""

import json
import random

import cv2
import numpy as np
import pytest

from ape_model.training.coco import CocoBatches, read_coco
from ape_model.training.errors import DataError
from ape_model.training.scenes import Canvas, Stage

STAGES = (Stage(0, (Canvas(64, 96, 2, 6),), 0.0),)


def table(**changes):
    """One picture of 40 x 60 with one square, as COCO."""
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    good = {
        "images": [{"id": 7, "file_name": "a.png", "height": 40, "width": 60}],
        "categories": [{"id": 3, "name": "gizmo", "synonyms": ["widget"]}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "segmentation": [square]}
        ],
    }
    return good | changes


@pytest.fixture
def write(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 60, 3), 90, np.uint8))

    def to_file(content):
        path = tmp_path / "data.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return to_file


def annotation(**changes):
    return table()["annotations"][0] | changes


def test_a_good_file_is_read_whole(write):
    data = read_coco(write(table()))
    assert data.names == ("gizmo",)
    assert data.synonyms == (("widget",),)
    assert [len(r) for r in data.regions] == [1]
    assert data.skips.counts == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no COCO file"),
        (table(annotations=[]), "has no annotations"),
        (table(images=[]), "has no images"),
        (
            table(images=[{"id": 7, "file_name": "gone.png", "height": 40, "width": 60}]),
            r"image row 0: .*gone.png is missing",
        ),
        (
            table(categories=[{"id": 3, "name": "Gizmo"}, {"id": 4, "name": "gizmo"}]),
            "category row 1 repeats the name 'gizmo'",
        ),
        (table(annotations=[annotation(image_id=9)]), "annotation row 0"),
        (table(annotations=[annotation(category_id=9)]), "annotation row 0"),
        (table(annotations=[annotation(bbox=[10, 10, 0, 5])]), "box without area"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(write, content, said):
    with pytest.raises(DataError, match=said) as caught:
        read_coco(write(content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (annotation(bbox=[10, 10, 0, 5]), "box without area"),
        (annotation(bbox=[60, 10, 10, 5]), "outside the picture"),
        (annotation(bbox=[-30, 10, 10, 5]), "outside the picture"),
        (annotation(iscrowd=1), "crowd"),
        (annotation(segmentation=[[1, 1, 2, 2]]), "outline of fewer than three points"),
    ],
)
def test_an_unusable_annotation_is_counted_and_the_rest_is_used(write, bad, cause):
    data = read_coco(write(table(annotations=[annotation(), bad])))
    assert data.skips.counts == {cause: 1}
    assert [len(r) for r in data.regions] == [1]


def test_an_unmoved_example_shows_the_square_where_it_is(write):
    batches = CocoBatches(read_coco(write(table())), STAGES, seed=0, unit=256, steps=4)
    example = batches.example(0, (80, 120), None)
    assert example.boxes.tolist() == [pytest.approx([20, 20, 62, 62], abs=3)]
    assert example.classes.tolist() == [0]


def test_every_jittered_example_has_boxes_that_bound_its_masks(write):
    batches = CocoBatches(read_coco(write(table())), STAGES, seed=0, unit=256, steps=4)
    rng = random.Random(0)
    for _ in range(20):
        example = batches.example(0, (64, 96), rng)
        for row, (x1, y1, x2, y2) in enumerate(example.boxes, start=1):
            rows, cols = np.nonzero(example.ids == row)
            assert (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)


def test_the_same_seed_and_step_make_the_same_batch(write):
    data = read_coco(write(table()))
    one, other = (CocoBatches(data, STAGES, seed=3, unit=256, steps=4)[2] for _ in range(2))
    assert one.images.equal(other.images)
    assert one.masks.equal(other.masks)


def test_a_picture_of_another_size_than_the_file_says_is_named(write):
    content = table(images=[{"id": 7, "file_name": "a.png", "height": 50, "width": 60}])
    batches = CocoBatches(read_coco(write(content)), STAGES, seed=0, unit=256, steps=4)
    with pytest.raises(DataError, match="another size"):
        batches.example(0, (64, 96), None)
