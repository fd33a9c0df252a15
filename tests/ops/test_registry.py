"""Which backend is chosen, and how a better one that fails is reported."""

import pytest
from cases import fused

import ape_cuda_ops
from ape_cuda_ops import registry
from ape_cuda_ops.backends import cpp
from ape_cuda_ops.errors import BackendError, CompileError

SHAPES = ((7, 5), (4, 3))


def test_the_environment_forces_a_backend(fresh_registry):
    fresh_registry.setenv("APE_STREAM_KERNELS", "embedding_bag")
    assert ape_cuda_ops.backend_in_use() == "embedding_bag"


@pytest.mark.parametrize("name", ["nonsense", "cuda"])
def test_a_choice_that_does_not_fit_lists_what_exists(fresh_registry, name):
    fresh_registry.setenv("APE_STREAM_KERNELS", name)
    with pytest.raises(BackendError, match="cpp, numba, embedding_bag"):
        ape_cuda_ops.msda_fused(*fused(), SHAPES)


def test_a_missing_compiler_is_reported_once_and_the_next_backend_used(fresh_registry):
    cpp._attention.cache_clear()
    fresh_registry.setenv("CXX", "no-such-compiler")
    with pytest.warns(UserWarning, match="cpp kernels cannot be used.*no-such-compiler"):
        assert ape_cuda_ops.backend_in_use() in {"numba", "embedding_bag"}
    assert ape_cuda_ops.backend_in_use() in {"numba", "embedding_bag"}  # no second warning
    with pytest.raises(CompileError, match="no-such-compiler"):
        registry.load("cpp")
