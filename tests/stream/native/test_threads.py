"""NumPy's linear algebra on one thread."""

import numpy as np
import pytest

from ape_stream.native.threads import one_blas_thread

threadpoolctl = pytest.importorskip("threadpoolctl")


def threads():
    infos = threadpoolctl.threadpool_info()
    return {one["filepath"]: one["num_threads"] for one in infos}


def test_only_openblas_is_limited_and_only_inside():
    openblas = {
        one["filepath"]
        for one in threadpoolctl.threadpool_info()
        if one["internal_api"] == "openblas"
    }
    before = threads()
    with one_blas_thread():
        inside = threads()
        assert np.allclose(np.eye(300) @ np.ones((300, 300)), 1)
    assert {path for path in inside if inside[path] != before[path]} <= openblas
    assert all(inside[path] == 1 for path in openblas)
    assert threads() == before
