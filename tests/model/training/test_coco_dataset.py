"""Batches of a user's images: where regions lie in them, and what cannot be read."""

import cv2
import numpy as np
import pytest
from PIL import Image

from ape_model.config import NANO
from ape_model.training.data.coco_dataset import CocoBatches
from ape_model.training.data.world_dataset import Canvas, Phase
from ape_model.training.errors import DataError
from ape_stream.datasets.instances import InstanceData, InstanceImage, Region, Skips

STAGES = (Phase(0, (Canvas(64, 96, 2),)),)
SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]


@pytest.fixture
def square(tmp_path):
    """One image of 40 x 60 with one region."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))

    def data(shape=SQUARE, size=(40, 60), path=path):
        image = InstanceImage(path, size, (Region(0, shape, masked=True),))
        return InstanceData((image,), ("gizmo",), ((),), 1, Skips())

    return data


def batches(data):
    return CocoBatches(data, STAGES, seed=3, network=NANO, steps=4)


def test_a_box_that_reaches_over_the_rim_is_used_as_far_as_it_shows(square):
    data = square([[50, 30, 90, 30, 90, 70, 50, 70]])
    assert batches(data).plain(0, 60).boxes.tolist() == [[50, 30, 60, 40]]


def test_an_unmoved_example_shows_the_square_where_it_is(square):
    example = batches(square()).plain(0, 120)
    assert example.boxes.tolist() == [pytest.approx([20, 20, 62, 62], abs=2)]
    assert example.classes.tolist() == [0]


def test_the_same_seed_and_step_make_the_same_batch(square):
    one, other = batches(square())[2], batches(square())[2]
    assert one.images.equal(other.images)
    assert one.masks.equal(other.masks)


@pytest.mark.parametrize("size", [(40, 60), (60, 40)])
def test_a_turned_photograph_is_read_the_way_the_data_set_means_it(square, tmp_path, size):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:10, :10] = 255  # the corner at the top left as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: the corner is at the top right
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    shown = batches(square(size=size, path=path)).plain(0, max(size)).image
    assert bool(shown[4, 4].mean() > 200) is (size == (40, 60))


def test_an_image_that_breaks_off_is_named(square, tmp_path):
    data = square()
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:50])
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image"):
        batches(data)[0]
