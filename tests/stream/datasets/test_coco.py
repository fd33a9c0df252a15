"""A user's data set is read: every fault is named or counted."""

import json

import cv2
import numpy as np
import pytest

from ape_stream.datasets.coco import read_coco
from ape_stream.datasets.instances import DatasetError


def table(**changes):
    """One image of 40 x 60 with one square, as COCO."""
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


def image(**changes):
    return table()["images"][0] | changes


def category(**changes):
    return table()["categories"][0] | changes


def test_a_good_file_is_read_whole(write):
    data = read_coco(write(table()))
    assert data.names == ("gizmo",)
    assert data.synonyms == (("widget",),)
    assert data.things == 1
    assert [[r.class_id for r in p.regions] for p in data.images] == [[0]]
    assert data.images[0].size == (40, 60)
    assert data.skips.counts == {}


def test_stuff_comes_after_things_in_any_order_of_the_file(write):
    categories = [
        {"id": 9, "name": "sky", "isthing": 0},
        {"id": 3, "name": "gizmo", "isthing": 1},
    ]
    sky = annotation(category_id=9)
    data = read_coco(write(table(categories=categories, annotations=[annotation(), sky])))
    assert data.names == ("gizmo", "sky")
    assert data.things == 1
    assert [r.class_id for r in data.images[0].regions] == [0, 1]


def test_frequencies_count_images_and_not_regions(write):
    categories = [category(), {"id": 4, "name": "sky"}]
    data = read_coco(write(table(categories=categories, annotations=[annotation(), annotation()])))
    assert data.frequencies() == [1, 0]


def test_a_region_without_a_mask_is_its_box_and_says_so(write):
    bare = annotation(segmentation=[])
    data = read_coco(write(table(annotations=[annotation(), bare])))
    assert [r.masked for r in data.images[0].regions] == [True, False]
    assert data.images[0].regions[1].shape == [[10, 10, 30, 10, 30, 30, 10, 30]]


def test_phrases_belong_to_their_region(write):
    data = read_coco(write(table(annotations=[annotation(phrases=["the grey gizmo"])])))
    assert data.images[0].regions[0].phrases == ("the grey gizmo",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no COCO file"),
        (table(annotations=[]), "has no annotations"),
        (table(images=[]), "has no images"),
        (table(categories=[]), "has no categories"),
        (table(images=[3]), "row 0 of images is 3"),
        (
            table(images=[image(file_name="gone.png")]),
            r"image row 0: .*gone.png is missing; --images names its",
        ),
        (table(images=[image(file_name=None)]), "image row 0 needs 'file_name'"),
        (table(images=[image(height="40")]), "image row 0 needs 'height'"),
        (table(images=[image(), image()]), "image row 1 repeats the id 7"),
        (table(images=[image(height=50)]), "image row 0: .*a.png is 60 x 40, not 60 x 50"),
        (
            table(images=[image(file_name="data.json")]),
            "image row 0: .*cannot be read as an image",
        ),
        (
            table(categories=[category(name="Gizmo"), {"id": 4, "name": "gizmo"}]),
            "category row 1 repeats the name 'gizmo' of row 0",
        ),
        (table(categories=[category(), {"id": 4, "name": "widget"}]), "category row 1 repeats"),
        (table(categories=[category(), {"id": 3, "name": "sky"}]), "two categories have the same"),
        (table(categories=[category(name="...")]), "category row 0: '...' holds no letter"),
        (table(categories=[category(name=5)]), "category row 0 needs 'name'"),
        (table(categories=[category(synonyms="widget")]), "category row 0: synonyms is a list"),
        (table(annotations=[annotation(image_id=9)]), "annotation row 0"),
        (table(annotations=[annotation(category_id=9)]), "annotation row 0"),
        (table(annotations=[annotation(bbox=[1, 2, 3])]), "annotation row 0: bbox is x, y"),
        (table(annotations=[annotation(bbox=[1, 2, 3, "4"])]), "annotation row 0: bbox is x, y"),
        (table(annotations=[annotation(bbox=[1, 2, 3, float("nan")])]), "annotation row 0: bbox"),
        (table(annotations=[annotation(bbox=None, segmentation=None)]), "row 0 has neither bbox"),
        (table(annotations=[annotation(segmentation=[[1, 2, 3]])]), "annotation row 0: no polyg"),
        (
            table(annotations=[annotation(segmentation={"size": [40, 60]})]),
            "annotation row 0: no p",
        ),
        (table(annotations=[annotation(phrases="grey")]), "annotation row 0: phrases is a list"),
        (table(annotations=[annotation(bbox=[10, 10, 0, 5])]), "left out: 1 box without area"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(write, content, message):
    path = write(content)
    with pytest.raises(DatasetError, match=message) as caught:
        read_coco(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


EMPTY = {"size": [40, 60], "counts": [2400]}
SMALL = {"size": [20, 20], "counts": [100, 300]}
LINE = [[5, 5, 20, 5, 30, 5]]


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (annotation(bbox=[10, 10, 0, 5]), "box without area"),
        (annotation(bbox=[60, 10, 10, 5]), "outside the image"),
        (annotation(bbox=[-30, 10, 10, 5]), "outside the image"),
        (annotation(segmentation=[[70, 1, 80, 1, 80, 9]]), "outside the image"),
        (annotation(iscrowd=1), "crowd"),
        (annotation(segmentation=[[1, 1, 2, 2]]), "outline of fewer than three points"),
        (annotation(segmentation=LINE), "mask without area"),
        (annotation(segmentation=EMPTY), "mask without area"),
        (annotation(segmentation={"size": [40, 60], "counts": "PY2"}), "mask without area"),
        (annotation(segmentation=SMALL), "mask of another size than its image"),
    ],
)
def test_an_unusable_annotation_is_counted_and_the_rest_is_used(write, bad, cause):
    data = read_coco(write(table(annotations=[annotation(), bad])))
    assert data.skips.counts == {cause: 1}
    assert [len(p.regions) for p in data.images] == [1]
