"""The operators as torch sees them: autograd, compile, export, CUDA graphs."""

import subprocess
import sys

import pytest
import torch
from cases import fused
from torch.library import opcheck

import ape_cuda_ops

SHAPES = ((7, 5), (4, 3))
FLAT = [7, 5, 4, 3]


def leaves():
    return [t.requires_grad_() for t in fused(batch=1, queries=4)]


@pytest.mark.parametrize("with_reference", [True, False])
def test_opcheck_finds_nothing(with_reference):
    value, points, offsets, logits = leaves()
    if with_reference:
        inputs = (value, FLAT, offsets, logits, points)
    else:
        weights = logits.detach().unflatten(-1, (2, 3)).requires_grad_()
        inputs = (value, FLAT, offsets, weights)
    results = opcheck(torch.ops.ape_stream.msda.default, inputs)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("axes", [2, 4])
def test_autograd_equals_float64(axes):
    tensors = fused(axes=axes, queries=5)
    single = [t.requires_grad_() for t in tensors]
    double = [t.detach().double().requires_grad_() for t in tensors]
    gradients = []
    for inputs in (single, double):
        out = ape_cuda_ops.msda_fused(*inputs, SHAPES)
        gradients.append(torch.autograd.grad(out.square().sum(), inputs))
    for got, expected in zip(*gradients, strict=True):
        assert ((got - expected).norm() / expected.norm()).item() < 1e-5


def test_compiled_graph_equals_eager():
    inputs = leaves()
    graph = torch.compile(
        lambda *t: ape_cuda_ops.msda_fused(*t, SHAPES), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(graph(*inputs), ape_cuda_ops.msda_fused(*inputs, SHAPES))


def test_export_keeps_one_node():
    class Module(torch.nn.Module):
        def forward(self, value, reference, offsets, logits):
            return ape_cuda_ops.msda_fused(value, reference, offsets, logits, SHAPES)

    program = torch.export.export(Module(), tuple(fused(batch=1, queries=4)))
    calls = [n.target for n in program.graph.nodes if n.op == "call_function"]
    assert calls.count(torch.ops.ape_stream.msda.default) == 1
    assert len(calls) == 1


def test_nms_keeps_the_order_given():
    boxes = torch.tensor([[0, 0, 1, 1.0]] * 6)
    scores = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.9, 0.9])
    groups = torch.tensor([2, 2, 0, 7, 2, -1])  # two are padding
    keep = ape_cuda_ops.nms_grouped(boxes, scores, groups, 3, 0.5)
    assert keep.tolist() == [False, True, True, False, False, False]


def test_packed_masks_and_suppression_trace():
    words = torch.library.opcheck(
        torch.ops.ape_stream.mask_pack.default, (torch.randn(2, 8, 8), [5, 40], [8.0, 6.5], 0.0)
    )
    boxes, starts = torch.rand(5, 4), torch.tensor([0, 2, 5])
    kept = torch.library.opcheck(torch.ops.ape_stream.nms_grouped.default, (boxes, starts, 0.5))
    assert {*words.values(), *kept.values()} == {"SUCCESS"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_cuda_graph_holds_the_operator():
    inputs = [t.cuda() for t in fused()]
    eager = ape_cuda_ops.msda_fused(*inputs, SHAPES)  # compiles and loads before the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = ape_cuda_ops.msda_fused(*inputs, SHAPES)
    graph.replay()
    assert torch.equal(out, eager)


def test_the_first_call_does_not_load_torchs_compiler():
    """It takes longer than to load a small model, at every start of every command."""
    script = """
import sys, torch
from ape_cuda_ops.ops import mask_pack, msda, nms_grouped
msda(torch.zeros(1, 4, 1, 8), [(2, 2)], torch.zeros(1, 1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 1))
nms_grouped(torch.zeros(1, 4), torch.zeros(1), torch.zeros(1, dtype=torch.int64), 1, 0.5)
mask_pack(torch.zeros(1, 2, 2), (4, 4))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
