"""Mask packing of every backend, compared with the masks that ape_stream makes on the CPU."""

from pathlib import Path

import emulated
import numpy as np
import pytest
import torch

from ape_stream import masks

CPU = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""


def unpacked(words, width):
    bits = (words[..., None] >> torch.arange(32)) & 1
    assert not bits.flatten(-2)[..., width:].any()
    return bits.flatten(-2)[..., :width].bool()


@pytest.mark.parametrize(
    ("size", "filled"), [((41, 70), (12, 20)), ((33, 65), (8.3, 19.55)), ((5, 7), (12, 20))]
)
def test_packed_masks_equal_cropped_masks(post_backend, size, filled):
    logits = torch.randn(4, 12, 20, generator=torch.Generator().manual_seed(0))
    assert_packed_as_cropped(post_backend, logits, size, filled)


def test_pixels_at_the_threshold_get_the_same_bit(post_backend):
    assert_packed_as_cropped(post_backend, *ties(40, 19.55))


@pytest.mark.skipif(not emulated.has_compiler(), reason="no g++")
@pytest.mark.skipif("fma" not in CPU, reason="this CPU does not fuse products and sums")
def test_a_compiler_that_fuses_products_and_sums_changes_no_pixel():
    kernels = emulated.kernels(flags=("-O2", "-mfma", "-ffp-contract=fast"))
    assert_packed_as_cropped(kernels, *ties(40, 19.55))


def ties(pixels, filled, cells=20):
    """Maps that each have one pixel whose logit is zero but for rounding."""
    centres = torch.arange(pixels) + 0.5
    at = (centres * (filled / pixels) - 0.5).clamp(min=0.1)
    lower = at.long().clamp(max=cells - 2)
    weight = at - lower
    lines = torch.full((pixels, cells), -1.0).scatter_(1, lower[:, None], 0.7)
    lines.scatter_(1, lower[:, None] + 1, (0.7 * (weight - 1) / weight)[:, None])
    return lines[:, None], (2, pixels), (1, filled)


def assert_packed_as_cropped(kernels, logits, size, filled):
    dense = unpacked(kernels.mask_pack(logits, size, filled, 0.0), size[1]).numpy()
    assert dense.any()
    for one, mine in zip(logits.numpy(), dense, strict=True):
        expected = masks.paste(masks.from_logits(one, size, filled), size)
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("size", [(20, 45), (64, 32), (3, 1)])
def test_masks_pack_as_upsampled_and_thresholded(post_backend, size):
    logits = torch.randn(3, 6, 9, generator=torch.Generator().manual_seed(0))
    words = post_backend.mask_pack(logits, size, (6, 9), 0.0)
    image = torch.nn.functional.interpolate(logits[None], size, mode="bilinear")[0]
    assert torch.equal(unpacked(words, size[1]), image > 0)
