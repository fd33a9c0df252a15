"""The C++ kernels on older processors, and their number of threads."""

import ctypes
import platform

import pytest
import torch
from cases import TOLERANCE, exact, fused, relative

from ape_cuda_ops.backends import cpp, reference
from ape_stream.native import cxx

SHAPES = ((7, 5), (4, 3))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these levels are of x86-64")
@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3"])
def test_older_processors_compute_the_same(level, monkeypatch):
    """With vectors of eight lanes; this processor may have sixteen."""
    if level == "x86-64-v3" and cxx.architecture_flags() == ("-march=x86-64-v2",):
        pytest.skip("this processor has no AVX2")
    library = ctypes.CDLL(str(cxx.shared_library(cpp.FOLDER / "msda.cpp", (f"-march={level}",))))
    monkeypatch.setattr(cpp, "_attention", lambda: library)
    for dim in (8, 16, 24, 32, 64):
        tensors = fused(dim=dim, points=4)
        expected = reference.msda_fused(*exact(tensors), SHAPES)
        got = cpp.CPP.forward(tensors[0], SHAPES, *tensors[2:], tensors[1])
        assert relative(got, expected) < TOLERANCE[torch.float32]


def test_the_number_of_threads_is_that_of_torch(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    value, _, offsets, logits = fused()
    assert cpp._arguments(value, SHAPES, offsets, logits).threads == 3
