"""A user's data set is read: every fault is named or counted."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from ape_model.config import NANO
from ape_model.training.data.coco import read_coco
from ape_model.training.data.coco_dataset import CocoBatches
from ape_model.training.data.world_dataset import Canvas, Phase
from ape_model.training.errors import DataError

STAGES = (Phase(0, (Canvas(64, 96, 2),)),)


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
        (table(images=[image(file_name="gone.png")]), r"image row 0: .*gone.png is missing"),
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
    with pytest.raises(DataError, match=message) as caught:
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


def test_a_box_that_reaches_over_the_rim_is_used_as_far_as_it_shows(write):
    data = read_coco(write(table(annotations=[annotation(bbox=[50, 30, 40, 40], segmentation=[])])))
    example = CocoBatches(data, STAGES, seed=0, network=NANO, steps=4).example(0, (40, 60))
    assert example.boxes.tolist() == [[50, 30, 60, 40]]


def test_an_unmoved_example_shows_the_square_where_it_is(write):
    batches = CocoBatches(read_coco(write(table())), STAGES, seed=0, network=NANO, steps=4)
    example = batches.example(0, (80, 120))
    assert example.boxes.tolist() == [pytest.approx([20, 20, 62, 62], abs=2)]
    assert example.classes.tolist() == [0]


def test_the_same_seed_and_step_make_the_same_batch(write):
    data = read_coco(write(table()))
    one, other = (CocoBatches(data, STAGES, seed=3, network=NANO, steps=4)[2] for _ in range(2))
    assert one.images.equal(other.images)
    assert one.masks.equal(other.masks)


@pytest.mark.parametrize("size", [(40, 60), (60, 40)])
def test_a_turned_photograph_is_read_the_way_the_data_set_means_it(tmp_path, size):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:10, :10] = 255  # the corner at the top left as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: the corner is at the top right
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    content = table(
        images=[image(file_name="a.jpg", height=size[0], width=size[1])],
        annotations=[annotation(bbox=[0, 0, 20, 20], segmentation=[])],
    )
    (tmp_path / "data.json").write_text(json.dumps(content))
    data = read_coco(tmp_path / "data.json")
    shown = CocoBatches(data, STAGES, seed=0, network=NANO, steps=1).example(0, size).image
    assert bool(shown[4, 4].mean() > 200) is (size == (40, 60))


def test_an_image_that_breaks_off_is_named(write, tmp_path):
    path = write(table())
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:50])
    batches = CocoBatches(read_coco(path), STAGES, seed=0, network=NANO, steps=4)
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image"):
        batches[0]
