"""Deformable attention of every backend, compared with the reference in float64."""

import os
from pathlib import Path

import pytest
import torch
from cases import GRADIENT_TOLERANCE, TOLERANCE, exact, fused, relative
from safetensors.torch import load_file

from ape_cuda_ops.backends import reference
from ape_cuda_ops.backends.embedding_bag import EMBEDDING_BAG

SHAPES = ((7, 5), (4, 3))
GOLDENS = Path(os.environ.get("APE_GOLDENS", Path(__file__).parents[4] / "shared/goldens"))


def check(backend, tensors, shapes=SHAPES):
    got = backend.msda_fused(*tensors, shapes)
    expected = reference.msda_fused(*exact(tensors), shapes)
    assert got.dtype == tensors[0].dtype
    assert relative(got, expected) < TOLERANCE[got.dtype]


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
def test_the_order_of_queries_changes_no_bit(backend):
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


def test_msda_equals_the_reference(backend):
    value, ref, offsets, logits = fused()
    locations = reference.sampling_locations(ref, offsets, SHAPES)
    weights = reference.sampling_weights(logits, 2, ref)
    got = backend.msda(value, SHAPES, locations, weights)
    expected = reference.msda(value.double(), SHAPES, locations.double(), weights.double())
    assert relative(got, expected) < TOLERANCE[torch.float32]


@pytest.mark.parametrize(("batch", "queries"), [(0, 3), (2, 0)])
def test_empty_batches_and_queries(backend, batch, queries):
    if backend.name == "reference":
        pytest.skip("grid_sample takes no empty batch")
    out = backend.msda_fused(*fused(batch=batch, queries=queries), SHAPES)
    assert out.shape == (batch, queries, 32)


@pytest.mark.parametrize("far", [1e4, -1e4, 1e30, float("inf"), float("-inf"), float("nan")])
def test_far_and_not_finite_offsets_contribute_nothing(backend, far):
    value, ref, offsets, logits = fused()
    offsets[:, ::2] = far
    out = backend.msda_fused(value, ref, offsets, logits, SHAPES)
    assert torch.equal(out[:, ::2], torch.zeros_like(out[:, ::2]))
    expected = reference.msda_fused(*exact((value, ref, offsets, logits)), SHAPES)
    assert relative(out, expected) < TOLERANCE[torch.float32]


def test_a_sample_on_a_pixel_reads_that_pixel(backend):
    value = torch.arange(6.0).view(1, 6, 1, 1).repeat(1, 1, 1, 16)
    locations = torch.tensor([2.5 / 3, 1.5 / 2]).view(1, 1, 1, 1, 1, 2)
    out = backend.msda(value, ((2, 3),), locations, torch.ones(1, 1, 1, 1, 1))
    assert torch.allclose(out, torch.full((1, 1, 16), 5.0))


def test_a_sample_at_the_corner_of_the_image_reads_a_quarter(backend):
    value = torch.full((1, 6, 1, 16), 8.0)
    out = backend.msda(value, ((2, 3),), torch.zeros(1, 1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 1))
    assert torch.allclose(out, torch.full((1, 1, 16), 2.0))


@pytest.mark.parametrize("axes", [2, 4])
@pytest.mark.parametrize("dim", [16, 32])
def test_fused_gradients(gradient_backend, axes, dim):
    value, points, offsets, logits = fused(axes=axes, dim=dim)
    inputs = (value, SHAPES, offsets, logits, points)
    grad = torch.randn(2, 37, 2 * dim, generator=torch.Generator().manual_seed(1))
    got = gradient_backend.backward(grad, *inputs)
    as_float64 = [i.double() if isinstance(i, torch.Tensor) else i for i in inputs]
    expected = EMBEDDING_BAG.backward(grad.double(), *as_float64)
    for mine, true in zip(got, expected, strict=True):
        assert relative(mine, true) < GRADIENT_TOLERANCE


def test_gradients_equal_autograd_of_the_reference(gradient_backend):
    value, points, offsets, logits = fused(dim=16)
    locations = reference.sampling_locations(points, offsets, SHAPES)
    weights = reference.sampling_weights(logits, 2, points)
    leaves = [t.double().requires_grad_() for t in (value, locations, weights)]
    out = reference.msda(leaves[0], SHAPES, *leaves[1:])
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad(out, leaves, grad.double())
    got = gradient_backend.backward(grad, value, SHAPES, locations, weights)
    for mine, true in zip(got, expected, strict=True):
        assert relative(mine, true) < GRADIENT_TOLERANCE


def test_the_gradient_of_an_undefined_offset_is_zero(gradient_backend):
    value, ref, offsets, logits = fused()
    offsets[:, 0] = float("nan")
    grad = torch.ones(2, 37, 32)
    _, by_pixel, by_logit = gradient_backend.backward(grad, value, SHAPES, offsets, logits, ref)
    assert not by_pixel[:, 0].any()
    assert not by_logit[:, 0].any()
    assert by_pixel[:, 1].any()


def test_official_result(backend):
    file = GOLDENS / "unit_msda_op.safetensors"
    if not file.exists():
        pytest.skip(f"no {file}: set APE_GOLDENS")
    if backend.name in {"emulated", "cuda"}:
        pytest.skip("the golden tensors have head dimension 8, CUDA kernels take 16, 32 and 64")
    golden = load_file(file)
    shapes = [tuple(shape) for shape in golden["shapes"].tolist()]
    got = backend.msda(golden["value"], shapes, golden["loc"], golden["weights"])
    assert relative(got, golden["out_f64"]) < TOLERANCE[torch.float32]
