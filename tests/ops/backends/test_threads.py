"""A kernel leaves torch's number of threads unchanged: numba and torch may share one OpenMP."""

import importlib.util
import os
import subprocess
import sys

import pytest

PROGRAM = """
import torch
import ape_cuda_ops
torch.set_num_threads(1)
weights = torch.ones(1, 2, 1, 1, 1)
ape_cuda_ops.msda(torch.rand(1, 4, 1, 16), [(2, 2)], torch.rand(1, 2, 1, 1, 1, 2), weights)
print(ape_cuda_ops.backend_in_use().split(";")[0], torch.get_num_threads())
"""


@pytest.mark.parametrize("name", ["cpp", "numba", "embedding_bag"])
def test_a_kernel_changes_no_number_of_threads(name):
    if name == "numba" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    # A fresh process: numba starts its threads at its first call only.
    path = os.pathsep.join(sys.path)
    given = {**os.environ, "APE_STREAM_KERNELS": name, "PYTHONPATH": path, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=given, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [name, "1"]
