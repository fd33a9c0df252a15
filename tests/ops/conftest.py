"""One set of backends for all tests of the operators."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves helpers unimportable

import emulated

from ape_cuda_ops.backends import reference
from ape_cuda_ops.backends.cpp import by_cpp
from ape_cuda_ops.backends.cuda import by_cupy, by_driver
from ape_cuda_ops.backends.embedding_bag import by_bag
from ape_cuda_ops.backends.numba import by_numba

BACKENDS = ("reference", "embedding_bag", "numba", "cpp", "emulated", "cupy", "driver")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Compiled kernels are kept for this run only."""
    patch = pytest.MonkeyPatch()
    patch.setenv("APE_STREAM_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def load(name):
    if name in {"cupy", "driver"} and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    if name == "cupy":
        pytest.importorskip("cupy", reason="cupy is not installed")
    if name == "numba" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    if name in {"cpp", "emulated"} and not emulated.has_compiler():
        pytest.skip("no g++")
    return {
        "reference": reference,
        "embedding_bag": by_bag,
        "numba": by_numba,
        "cpp": by_cpp,
        "emulated": emulated.kernels(),
        "cupy": by_cupy,
        "driver": by_driver,
    }[name]


class Backend:
    """A backend's functions on CPU tensors, wherever it computes."""

    def __init__(self, name):
        self.name, self.kernels = name, load(name)
        self.device = "cuda" if name in {"cupy", "driver"} else "cpu"

    def __getattr__(self, function):
        def call(*arguments):
            there = [a.to(self.device) if isinstance(a, torch.Tensor) else a for a in arguments]
            out = getattr(self.kernels, function)(*there)
            return out.cpu() if isinstance(out, torch.Tensor) else tuple(o.cpu() for o in out)

        return call


@pytest.fixture(params=BACKENDS)
def backend(request):
    return Backend(request.param)


@pytest.fixture(params=[name for name in BACKENDS if name != "reference"])
def gradient_backend(request):
    return Backend(request.param)


@pytest.fixture(params=["reference", "emulated", "cupy", "driver"])
def post_backend(request):
    return Backend(request.param)
