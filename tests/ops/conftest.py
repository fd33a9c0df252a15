"""One set of backends for all tests of the operators."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves helpers unimportable

import emulated

from ape_cuda_ops import registry
from ape_cuda_ops.backends import reference
from ape_cuda_ops.backends.cpp import CPP
from ape_cuda_ops.backends.cuda import CUDA
from ape_cuda_ops.backends.embedding_bag import EMBEDDING_BAG
from ape_cuda_ops.backends.numba import NUMBA

BACKENDS = ("reference", "embedding_bag", "numba", "cpp", "emulated", "cuda")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Compiled kernels are kept for this run only."""
    patch = pytest.MonkeyPatch()
    patch.setenv("APE_STREAM_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def fresh_registry(monkeypatch):
    """A registry that has chosen nothing yet; returns the monkeypatch to prepare its choice."""
    registry._name.cache_clear()
    registry.load.cache_clear()
    monkeypatch.setattr(registry, "_failures", {})
    yield monkeypatch
    registry._name.cache_clear()
    registry.load.cache_clear()


def load(name):
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    if name == "numba" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    if name in {"cpp", "emulated"} and not emulated.has_compiler():
        pytest.skip("no g++")
    return {
        "reference": reference,
        "embedding_bag": EMBEDDING_BAG,
        "numba": NUMBA,
        "cpp": CPP,
        "emulated": emulated.kernels(),
        "cuda": CUDA,
    }[name]


class Backend:
    """A backend's operators on CPU tensors, wherever it computes."""

    def __init__(self, name):
        self.name, self.kernels = name, load(name)
        self.device = "cuda" if name == "cuda" else "cpu"

    def __getattr__(self, function):
        return lambda *arguments: self._call(getattr(self.kernels, function), *arguments)

    def _call(self, function, *arguments):
        there = [a.to(self.device) if isinstance(a, torch.Tensor) else a for a in arguments]
        out = function(*there)
        return out.cpu() if isinstance(out, torch.Tensor) else tuple(o.cpu() for o in out)

    def msda(self, value, shapes, locations, weights):
        function = reference.msda if self.name == "reference" else self.kernels.forward
        return self._call(function, value, shapes, locations, weights)

    def msda_fused(self, value, points, offsets, logits, shapes):
        if self.name == "reference":
            return reference.msda_fused(value, points, offsets, logits, shapes)
        return self._call(self.kernels.forward, value, shapes, offsets, logits, points)

    def msda_fused_backward(self, grad, value, points, offsets, logits, shapes):
        return self._call(self.kernels.backward, grad, value, shapes, offsets, logits, points)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return Backend(request.param)


@pytest.fixture(params=[name for name in BACKENDS if name != "reference"])
def gradient_backend(request):
    return Backend(request.param)


@pytest.fixture(params=["reference", "cpp", "emulated", "cuda"])
def post_backend(request):
    return Backend(request.param)
