"""Images are resized as by Pillow, to the byte: in C++, by torch in integers, and axis by axis."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pixels import noise, pillow

from ape_cuda_ops.backends.base import Kernels
from ape_cuda_ops.backends.embedding_bag import EMBEDDING_BAG
from ape_cuda_ops.resize import resize_bytes, resize_tensor

SIDES = st.one_of(st.integers(1, 40), st.integers(1, 400))


def by_torch(image, size):
    return resize_tensor(torch.from_numpy(image), size).numpy()


def assert_pillows(image, size):
    wanted = pillow(image, size)
    for resize in (resize_bytes, by_torch):
        np.testing.assert_array_equal(resize(image, size), wanted)


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 99))
def test_images_of_all_sizes_are_pillows_to_the_byte(height, width, rows, columns, seed):
    assert_pillows(noise(height, width, seed), (rows, columns))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((1080, 1920), (576, 1024)),
        ((1080, 1920), (160, 284)),
        ((720, 1280), (576, 1024)),
        ((2160, 3840), (576, 1024)),
        ((480, 640), (768, 1024)),
        ((1079, 1917), (577, 1024)),
        ((1, 5000), (1, 1024)),
        ((1920, 1080), (1024, 576)),
        ((1022, 250), (256, 63)),  # rows first in Pillow 13
        ((1024, 1024), (1024, 1024)),
    ],
)
def test_frames_of_usual_sizes_are_pillows_to_the_byte(given, wanted):
    assert_pillows(noise(*given), wanted)


def test_a_view_and_a_frame_that_cannot_be_written_are_resized():
    image = noise(60, 90)
    image.setflags(write=False)
    for view in (image, image[10:50, ::2], image[::-1]):
        np.testing.assert_array_equal(
            resize_bytes(view, (20, 30)), pillow(np.ascontiguousarray(view), (20, 30))
        )


@pytest.mark.parametrize("axis", [0, 1])
def test_without_a_compiler_pillow_itself_resizes(axis):
    assert EMBEDDING_BAG.resize_axis.__func__ is Kernels.resize_axis
    image, size = noise(50, 70), [50, 70]
    size[axis] = 33
    resized = EMBEDDING_BAG.resize_axis(image, axis, 33)
    np.testing.assert_array_equal(resized, pillow(image, tuple(size)))
    np.testing.assert_array_equal(resized, resize_bytes(image, tuple(size)))
