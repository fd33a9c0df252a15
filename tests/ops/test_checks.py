"""Errors of wrong arguments: they name the argument, before any launch."""

import pytest
import torch
from cases import fused

import ape_cuda_ops

SHAPES = ((7, 5), (4, 3))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({0: lambda t: t[0]}, ValueError, "value must be"),
        ({0: lambda t: t.int()}, TypeError, "torch.int32"),
        ({1: lambda t: t.half()}, TypeError, "reference must be torch.float32.*torch.float16"),
        ({1: lambda t: t[..., :1]}, ValueError, "2 .xy. or 4"),
        ({2: lambda t: t[:, :, :1]}, ValueError, r"offsets must be \(2, 37, 2, 2, 3, 2\).*37, 1"),
        ({2: lambda t: t.half()}, TypeError, "torch.float16"),
        ({3: lambda t: t[..., :5]}, ValueError, r"logits must be \(2, 37, 2, 6\).*, 5\)"),
        ({0: lambda t: t.transpose(2, 3).contiguous().transpose(2, 3)}, ValueError, "contiguous"),
        ({3: lambda t: t.to("meta")}, ValueError, "logits is on meta but value is on cpu"),
    ],
)
def test_wrong_tensors_are_named_before_any_launch(change, error, message):
    tensors = list(fused())
    for index, edit in change.items():
        tensors[index] = edit(tensors[index])
    with pytest.raises(error, match=message):
        ape_cuda_ops.msda_fused(*tensors, SHAPES)


def test_shapes_that_do_not_fit_the_values_are_named():
    value, _, offsets, logits = fused()
    with pytest.raises(ValueError, match="have 48 tokens but value has 47"):
        ape_cuda_ops.msda(value, ((7, 5), (13, 1)), offsets, logits.unflatten(-1, (2, 3)))


@pytest.mark.parametrize("shapes", [(), ((1, 1),) * 9, ((47, 1), (0, 3))])
def test_too_few_too_many_or_empty_levels_are_refused(shapes):
    value, _, offsets, logits = fused()
    with pytest.raises(ValueError, match=r"1 to 8|at least 1 x 1"):
        ape_cuda_ops.msda(value, shapes, offsets, logits.unflatten(-1, (2, 3)))


@pytest.mark.parametrize("filled", [(0.0, 8.0), (8.0, 8.5)])
def test_a_filled_part_outside_the_map_is_refused(filled):
    with pytest.raises(ValueError, match="not inside the maps"):
        ape_cuda_ops.mask_pack(torch.zeros(1, 8, 8), (4, 4), filled)
