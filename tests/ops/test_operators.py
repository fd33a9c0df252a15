"""What torch, and a user who errs, see of the operators."""

import ctypes
import platform

import pytest
import torch
from cases import TOLERANCE, exact, fused, relative
from torch.library import opcheck

import ape_cuda_ops
from ape_cuda_ops import registry
from ape_cuda_ops.backends import reference
from ape_cuda_ops.build import cxx
from ape_cuda_ops.errors import BackendError, CompileError

SHAPES = ((7, 5), (4, 3))
FLAT = [7, 5, 4, 3]


def leaves():
    return [t.requires_grad_() for t in fused(batch=1, queries=4)]


def test_opcheck_finds_nothing():
    opcheck(torch.ops.ape_stream.msda_fused.default, (*leaves(), FLAT))


@pytest.mark.parametrize("axes", [2, 4])
def test_autograd_equals_float64(axes):
    tensors = fused(axes=axes, queries=5)
    single = [t.requires_grad_() for t in tensors]
    double = [t.detach().double().requires_grad_() for t in tensors]
    gradients = []
    for inputs in (single, double):
        out = ape_cuda_ops.msda_fused(*inputs, SHAPES)
        gradients.append(torch.autograd.grad(out.square().sum(), inputs))
    for got, wanted in zip(*gradients, strict=True):
        assert ((got - wanted).norm() / wanted.norm()).item() < 1e-5


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
    assert calls.count(torch.ops.ape_stream.msda_fused.default) == 1
    assert len(calls) == 1


def test_nms_keeps_the_order_given():
    boxes = torch.tensor([[0, 0, 1, 1.0]] * 6)
    scores = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.9, 0.9])
    groups = torch.tensor([2, 2, 0, 7, 2, -1])  # two of them in no group
    keep = ape_cuda_ops.nms_grouped(boxes, scores, groups, 3, 0.5)
    assert keep.tolist() == [False, True, True, False, False, False]


@pytest.mark.parametrize(
    ("change", "error", "says"),
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
def test_wrong_tensors_are_named_before_any_launch(change, error, says):
    tensors = list(fused())
    for index, edit in change.items():
        tensors[index] = edit(tensors[index])
    with pytest.raises(error, match=says):
        ape_cuda_ops.msda_fused(*tensors, SHAPES)


def test_wrong_shapes_and_starts_are_named():
    value, _, offsets, logits = fused()
    with pytest.raises(ValueError, match="hold 48 tokens but value holds 47"):
        ape_cuda_ops.msda(value, ((7, 5), (13, 1)), offsets, logits.unflatten(-1, (2, 3)))
    with pytest.raises(ValueError, match=r"starts must be \[0, 35\].*got \[0, 34\]"):
        ape_cuda_ops.msda(value, SHAPES, offsets, logits.unflatten(-1, (2, 3)), starts=[0, 34])


@pytest.fixture
def fresh(monkeypatch):
    registry._name.cache_clear()
    registry.load.cache_clear()
    monkeypatch.setattr(registry, "_failures", {})
    yield monkeypatch
    registry._name.cache_clear()
    registry.load.cache_clear()


def test_the_environment_forces_a_backend(fresh):
    fresh.setenv("APE_STREAM_KERNELS", "embedding_bag")
    assert ape_cuda_ops.backend_in_use() == "embedding_bag"


@pytest.mark.parametrize("name", ["nonsense", "cupy"])
def test_an_unfit_choice_lists_what_exists(fresh, name):
    fresh.setenv("APE_STREAM_KERNELS", name)
    with pytest.raises(BackendError, match="cpp, numba, embedding_bag"):
        ape_cuda_ops.msda_fused(*fused(), SHAPES)


def test_a_missing_compiler_is_said_once_and_the_next_backend_used(fresh):
    from ape_cuda_ops.backends import cpp  # noqa: PLC0415

    cpp._library.cache_clear()
    fresh.setenv("CXX", "no-such-compiler")
    with pytest.warns(UserWarning, match="cpp kernels cannot be used.*no-such-compiler"):
        assert ape_cuda_ops.backend_in_use() in {"numba", "embedding_bag"}
    assert ape_cuda_ops.backend_in_use() in {"numba", "embedding_bag"}  # no second warning
    with pytest.raises(CompileError, match="no-such-compiler"):
        registry.load("cpp")


def test_a_failing_compiler_is_quoted(tmp_path, monkeypatch):
    bad = tmp_path / "bad-c++"
    bad.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo broken >&2; exit 3; }\n')
    bad.chmod(0o755)
    monkeypatch.setenv("CXX", str(bad))
    source = tmp_path / "any.cpp"
    source.write_text("int x;")
    with pytest.raises(CompileError, match="exit code 3: broken"):
        cxx.shared_library(source)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of another architecture")
@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3"])
def test_lesser_processors_compute_the_same(level, monkeypatch):
    """With vectors of eight lanes, where this processor may have sixteen."""
    from ape_cuda_ops.backends import cpp  # noqa: PLC0415

    if level == "x86-64-v3" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has no AVX2")
    library = ctypes.CDLL(str(cxx.shared_library(cpp.SOURCE, (f"-march={level}",))))
    monkeypatch.setattr(cpp, "_library", lambda: library)
    for dim in (8, 16, 24, 32, 64):
        tensors = fused(dim=dim, points=4)
        wanted = reference.msda_fused(*exact(tensors), SHAPES)
        got = cpp.by_cpp.forward(tensors[0], SHAPES, *tensors[2:], tensors[1])
        assert relative(got, wanted) < TOLERANCE[torch.float32]


def test_threads_are_torchs(monkeypatch):
    from ape_cuda_ops.backends import cpp  # noqa: PLC0415

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    value, _, offsets, logits = fused()
    assert cpp._task(value, SHAPES, offsets, logits).threads == 3


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


@pytest.mark.parametrize("filled", [(0.0, 8.0), (8.0, 8.5)])
def test_a_part_outside_the_map_is_refused(filled):
    with pytest.raises(ValueError, match="not inside the maps"):
        ape_cuda_ops.mask_pack(torch.zeros(1, 8, 8), (4, 4), filled)


def test_packed_masks_and_suppression_trace():
    words = torch.library.opcheck(
        torch.ops.ape_stream.mask_pack.default, (torch.randn(2, 8, 8), [5, 40], [8.0, 6.5], 0.0)
    )
    boxes, starts = torch.rand(5, 4), torch.tensor([0, 2, 5])
    kept = torch.library.opcheck(torch.ops.ape_stream.nms_grouped.default, (boxes, starts, 0.5))
    assert {*words.values(), *kept.values()} == {"SUCCESS"}
