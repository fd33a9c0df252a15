"""Frames to network input: the same to the byte on a CPU and on a GPU."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from pixels import noise, pillow

from ape_model import perceiver as perceiving
from ape_model.config import NANO, PRESETS
from ape_model.inference.preprocess import make_batch, network_size, padded_size
from ape_model.perceiver import ApePerceiver
from ape_stream.types import Frame, PromptSet

SIDES = st.one_of(st.integers(1, 40), st.integers(1, 400))


def test_a_frame_is_flipped_to_rgb_and_normalised():
    image, config = noise(37, 61), getattr(NANO, "ape", NANO)
    batch, (size,) = make_batch([image], config)
    rgb = pillow(np.ascontiguousarray(image[..., ::-1]), size).astype(np.float32)
    mean, std = np.float32(config.pixel_mean), np.float32(config.pixel_std)
    wanted = ((rgb - mean) / std).transpose(2, 0, 1)
    np.testing.assert_array_equal(batch[0, :, : size[0], : size[1]], wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [PRESETS["Ti"], getattr(NANO, "ape", NANO)])
def test_an_uploaded_frame_makes_the_same_batch(config, dtype):
    frames = [noise(240, 320), noise(33, 500)]
    plain, sizes = make_batch(frames, config, dtype)
    mine, other = make_batch(frames, config, dtype, torch.from_numpy)
    assert sizes == other
    assert plain.dtype == dtype
    assert torch.equal(mine, plain)
    exact, _ = make_batch(frames, config)
    assert torch.equal(exact.to(dtype), plain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_gpu_makes_the_same_batch():
    frames, config = [noise(1080, 1920), noise(480, 640)], PRESETS["Ti"]
    plain, _ = make_batch(frames, config)
    mine, _ = make_batch(frames, config, upload=lambda image: torch.from_numpy(image).cuda())
    assert torch.equal(mine.cpu(), plain)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((240, 320), (192, 256)),
        ((960, 720), (256, 192)),
        ((1000, 1000), (256, 256)),
        ((1080, 1920), (160, 284)),
        ((1280, 720), (284, 160)),
        ((1080, 2560), (128, 303)),
        ((144, 256), (144, 256)),  # nothing to gain: it has no more pixels
        ((156, 270), (156, 270)),
        ((1, 1000), (1, 384)),
        ((7, 5), (256, 183)),
    ],
)
def test_nano_sees_a_wide_frame_on_a_longer_canvas(given, wanted):
    assert network_size(given, NANO.ape) == wanted
    assert network_size(given[::-1], NANO.ape) == wanted[::-1]


@example(161, 214)  # a little under 4:3
@given(SIDES, SIDES)
def test_a_wide_frame_costs_no_more_than_one_of_4_3(height, width):
    size = network_size((height, width), NANO.ape)
    rows, columns = padded_size([size], NANO.ape)
    assert 256 <= max(size) <= 384
    plain = replace(NANO.ape, wide_area=None)
    shorter = network_size((height, width), plain)
    # What is nearer to a square than 4:3 is as large as it ever was.
    assert rows * columns <= max(192 * 256, math.prod(padded_size([shorter], plain)))
    assert max(size) >= max(shorter)


@pytest.mark.parametrize(("canvas", "wanted"), [(None, (160, 284)), (320, (180, 320))])
def test_a_canvas_that_is_asked_for_is_the_long_side(home, monkeypatch, canvas, wanted):  # noqa: ARG001
    seen = []

    def note(*given):
        batch = make_batch(*given)
        seen.append(batch[1])
        return batch

    monkeypatch.setattr(perceiving, "make_batch", note)
    nano = ApePerceiver(device="cpu", canvas=canvas)
    nano.prepare(PromptSet.of(["cat"]))
    nano.perceive([Frame(noise(360, 640), 0, 0.0)])
    assert seen == [(wanted,)]
