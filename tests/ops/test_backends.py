"""Every backend against the plain twin in float64, by one tolerance table."""

import os
from itertools import pairwise
from pathlib import Path

import emulated
import numpy as np
import pytest
import torch
from cases import GRADIENT_TOLERANCE, TOLERANCE, exact, fused, relative
from safetensors.torch import load_file

from ape_cuda_ops.backends import reference
from ape_cuda_ops.backends.embedding_bag import by_bag
from ape_stream import masks

CPU = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""

SHAPES = ((7, 5), (4, 3))
GOLDENS = Path(os.environ.get("APE_GOLDENS", Path(__file__).parents[3] / "shared/goldens"))


def check(backend, tensors, shapes=SHAPES):
    got = backend.msda_fused(*tensors, shapes)
    wanted = reference.msda_fused(*exact(tensors), shapes)
    assert got.dtype == tensors[0].dtype
    assert relative(got, wanted) < TOLERANCE[got.dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("axes", [2, 4])
def test_fused_forward(backend, dtype, axes):
    check(backend, fused(dtype=dtype, axes=axes))


@pytest.mark.parametrize("dim", [32, 64])
def test_head_dimensions(backend, dim):
    check(backend, fused(dim=dim, queries=9))


def test_queries_that_are_the_pixels_in_tiles(backend):
    shapes = ((9, 17), (8, 3))
    check(backend, fused(shapes, queries=None, batch=1), shapes)


@pytest.mark.parametrize("backend", ["cpp"], indirect=True)
def test_the_order_of_visits_changes_no_bit(backend):
    shapes = ((9, 17), (8, 3))
    value, *queries = fused(shapes, queries=None)
    fewer = [tensor[:, :-1].contiguous() for tensor in queries]  # no longer the pixels: no tiles
    in_tiles = backend.msda_fused(value, *queries, shapes)
    assert torch.equal(in_tiles[:, :-1], backend.msda_fused(value, *fewer, shapes))


def test_eight_levels_and_many_points(backend):
    shapes = tuple((9 - i, i + 1) for i in range(8))
    check(backend, fused(shapes, queries=5, points=5), shapes)


def test_one_level_one_point_one_query(backend):
    check(backend, fused(((3, 3),), queries=1, points=1, batch=1), ((3, 3),))


def test_a_tail_of_queries_beyond_a_tile(backend):
    check(backend, fused(queries=65, batch=1))


def test_plain_form_equals_the_fused_one(backend):
    value, ref, offsets, logits = fused()
    locations = reference.sampling_locations(ref, offsets, SHAPES)
    weights = reference.sampling_weights(logits, 2, ref)
    got = backend.msda(value, SHAPES, locations, weights)
    wanted = reference.msda(value.double(), SHAPES, locations.double(), weights.double())
    assert relative(got, wanted) < TOLERANCE[torch.float32]


@pytest.mark.parametrize(("batch", "queries"), [(0, 3), (2, 0)])
def test_nothing_to_do(backend, batch, queries):
    if backend.name == "reference":
        pytest.skip("grid_sample refuses empty batches")
    out = backend.msda_fused(*fused(batch=batch, queries=queries), SHAPES)
    assert out.shape == (batch, queries, 32)


@pytest.mark.parametrize("far", [1e4, -1e4, 1e30, float("inf"), float("-inf"), float("nan")])
def test_samples_that_are_nowhere_contribute_nothing(backend, far):
    value, ref, offsets, logits = fused()
    offsets[:, ::2] = far
    out = backend.msda_fused(value, ref, offsets, logits, SHAPES)
    assert torch.equal(out[:, ::2], torch.zeros_like(out[:, ::2]))
    wanted = reference.msda_fused(*exact((value, ref, offsets, logits)), SHAPES)
    assert relative(out, wanted) < TOLERANCE[torch.float32]


def test_a_sample_on_a_pixel_reads_that_pixel(backend):
    value = torch.arange(6.0).view(1, 6, 1, 1).repeat(1, 1, 1, 16)
    locations = torch.tensor([2.5 / 3, 1.5 / 2]).view(1, 1, 1, 1, 1, 2)
    out = backend.msda(value, ((2, 3),), locations, torch.ones(1, 1, 1, 1, 1))
    assert torch.allclose(out, torch.full((1, 1, 16), 5.0))


def test_a_sample_on_the_corner_of_the_image_reads_a_quarter(backend):
    value = torch.full((1, 6, 1, 16), 8.0)
    out = backend.msda(value, ((2, 3),), torch.zeros(1, 1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 1))
    assert torch.allclose(out, torch.full((1, 1, 16), 2.0))


@pytest.mark.parametrize("axes", [2, 4])
@pytest.mark.parametrize("dim", [16, 32])
def test_fused_gradients(gradient_backend, axes, dim):
    tensors = fused(axes=axes, dim=dim)
    grad = torch.randn(2, 37, 2 * dim, generator=torch.Generator().manual_seed(1))
    got = gradient_backend.msda_fused_backward(grad, *tensors, SHAPES)
    wanted = by_bag.msda_fused_backward(grad.double(), *exact(tensors), SHAPES)
    for mine, true in zip(got, wanted, strict=True):
        assert relative(mine, true) < GRADIENT_TOLERANCE


def test_plain_gradients_are_autograds_of_the_plain_twin(gradient_backend):
    value, ref, offsets, logits = fused(dim=16)
    locations = reference.sampling_locations(ref, offsets, SHAPES)
    weights = reference.sampling_weights(logits, 2, ref)
    leaves = [t.double().requires_grad_() for t in (value, locations, weights)]
    out = reference.msda(leaves[0], SHAPES, *leaves[1:])
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    wanted = torch.autograd.grad(out, leaves, grad.double())
    got = gradient_backend.msda_backward(grad, value, SHAPES, locations, weights)
    for mine, true in zip(got, wanted, strict=True):
        assert relative(mine, true) < GRADIENT_TOLERANCE


def test_gradient_of_what_is_nowhere_is_zero(gradient_backend):
    value, ref, offsets, logits = fused()
    offsets[:, 0] = float("nan")
    grad = torch.ones(2, 37, 32)
    _, by_pixel, by_logit = gradient_backend.msda_fused_backward(
        grad, value, ref, offsets, logits, SHAPES
    )
    assert not by_pixel[:, 0].any()
    assert not by_logit[:, 0].any()
    assert by_pixel[:, 1].any()


def test_official_result(backend):
    file = GOLDENS / "unit_msda_op.safetensors"
    if not file.exists():
        pytest.skip(f"no {file}: set APE_GOLDENS")
    if backend.name in {"emulated", "cupy", "driver"}:
        pytest.skip("the golden has head dimension 8, CUDA kernels take 16, 32 and 64")
    golden = load_file(file)
    shapes = [tuple(shape) for shape in golden["shapes"].tolist()]
    got = backend.msda(golden["value"], shapes, golden["loc"], golden["weights"])
    assert relative(got, golden["out_f64"]) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (31, 32), (33, 0, 1, 2, 0, 100, 2), (1, 1)])
@pytest.mark.parametrize("padding", [0, 5])
def test_nms_keeps_what_greedy_suppression_keeps(post_backend, sizes, padding, monkeypatch):
    monkeypatch.setattr(reference, "PAIRS", 1200)  # so that there are several steps
    random = torch.Generator().manual_seed(sum(sizes))
    boxes = torch.rand((padding + sum(sizes) + padding, 4), generator=random)
    boxes[..., 2:] = boxes[..., :2] + 0.3 * boxes[..., 2:]
    starts = padding + torch.tensor([0, *sizes]).cumsum(0)
    keep = post_backend.nms_grouped(boxes, starts, 0.4)
    assert torch.equal(keep, greedy(boxes, starts.tolist(), 0.4))


def greedy(boxes, starts, threshold):
    keep = torch.zeros(len(boxes), dtype=torch.bool)
    for first, end in pairwise(starts):
        for i in range(first, end):
            overlaps = [iou(boxes[i], boxes[j]) > threshold for j in range(first, i) if keep[j]]
            keep[i] = not any(overlaps)
    return keep


def iou(a, b):
    overlap = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
    return overlap / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap)


def unpacked(words, width):
    bits = (words[..., None] >> torch.arange(32)) & 1
    assert not bits.flatten(-2)[..., width:].any()
    return bits.flatten(-2)[..., :width].bool()


@pytest.mark.parametrize(
    ("size", "filled"), [((41, 70), (12, 20)), ((33, 65), (8.3, 19.55)), ((5, 7), (12, 20))]
)
def test_packed_masks_are_the_cropped_ones_to_the_pixel(post_backend, size, filled):
    logits = torch.randn(4, 12, 20, generator=torch.Generator().manual_seed(0))
    assert_packed_as_cropped(post_backend, logits, size, filled)


def test_pixels_at_the_threshold_fall_the_same_way(post_backend):
    assert_packed_as_cropped(post_backend, *ties(40, 19.55))


@pytest.mark.skipif(not emulated.has_compiler(), reason="no g++")
@pytest.mark.skipif("fma" not in CPU, reason="this CPU does not fuse products and sums")
def test_a_compiler_that_fuses_products_and_sums_changes_no_pixel():
    fused = emulated.kernels(flags=("-O2", "-mfma", "-ffp-contract=fast"))
    assert_packed_as_cropped(fused, *ties(40, 19.55))


def ties(pixels, filled, cells=20):
    """Maps in each of which one pixel is at zero but for the rounding of what it is made of."""
    centres = torch.arange(pixels) + 0.5
    at = (centres * (filled / pixels) - 0.5).clamp(min=0.1)
    lower = at.long().clamp(max=cells - 2)
    share = at - lower
    lines = torch.full((pixels, cells), -1.0).scatter_(1, lower[:, None], 0.7)
    lines.scatter_(1, lower[:, None] + 1, (0.7 * (share - 1) / share)[:, None])
    return lines[:, None], (2, pixels), (1, filled)


def assert_packed_as_cropped(kernels, logits, size, filled):
    dense = unpacked(kernels.mask_pack(logits, size, filled, 0.0), size[1]).numpy()
    assert dense.any()
    for one, mine in zip(logits.numpy(), dense, strict=True):
        wanted = masks.paste(masks.from_logits(one, size, filled), size)
        np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize("size", [(20, 45), (64, 32), (3, 1)])
def test_masks_pack_as_upsampled_and_thresholded(post_backend, size):
    logits = torch.randn(3, 6, 9, generator=torch.Generator().manual_seed(0))
    words = post_backend.mask_pack(logits, size, (6, 9), 0.0)
    image = torch.nn.functional.interpolate(logits[None], size, mode="bilinear")[0]
    assert torch.equal(unpacked(words, size[1]), image > 0)
