import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from ape_stream import masks
from ape_stream.formats.shapes import COLOURS, edge_polygons, seamed_ring

BITMAPS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: arrays(bool, size, elements=st.sampled_from([False, True, True]))
)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@settings(max_examples=80, deadline=None)
@given(BITMAPS)
def test_coco_draws_edge_polygons_back(dense):
    height, width = dense.shape
    drawn = np.zeros_like(dense)
    for part in edge_polygons(masks.crop(dense)):
        filled, *holes = (
            coco_mask.decode(coco_mask.frPyObjects([ring.ravel().tolist()], height, width))[..., 0]
            for ring in (part.outer, *part.holes)
        )
        drawn |= (filled > 0) & ~np.any([*holes, np.zeros_like(filled)], axis=0)
    assert np.array_equal(drawn, dense)


@settings(max_examples=80, deadline=None)
@given(BITMAPS)
def test_opencv_draws_a_seamed_ring_as_its_part_with_holes(dense):
    mask = masks.crop(dense)
    for part in masks.polygons(mask):
        canvases = np.zeros((2, *dense.shape), np.uint8)
        cv2.fillPoly(canvases[0], [part.outer, *part.holes], 1)
        cv2.fillPoly(canvases[1], [seamed_ring([part], mask)], 1)
        assert np.array_equal(*canvases)


def test_the_largest_part_comes_first():
    dense = np.zeros((20, 20), bool)
    dense[0, 0] = dense[2:4, 2:4] = dense[10:19, 10:19] = True
    first, *_ = edge_polygons(masks.crop(dense))
    assert sorted(map(tuple, first.outer.tolist())) == [(10, 10), (10, 19), (19, 10), (19, 19)]


def test_colours_are_those_of_voc():
    assert [tuple(COLOURS[3 * k : 3 * k + 3]) for k in (0, 1, 2, 15, 255)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (192, 128, 128),
        (224, 224, 192),
    ]
