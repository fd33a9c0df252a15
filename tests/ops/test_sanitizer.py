"""The device tests of every kernel once more, under the eyes of compute-sanitizer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
TOOL = shutil.which("compute-sanitizer")
FOUND = 9


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.skipif(TOOL is None, reason="compute-sanitizer is not on the path: it is in CUDA")
@pytest.mark.parametrize("check", ["memcheck", "racecheck"])
def test_no_kernel_touches_what_is_not_its_own(check):
    watched = [TOOL, "--tool", check, "--error-exitcode", str(FOUND)]
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-k", "cupy or driver"]
    # Torch takes memory in large pieces: an index past the end would still be inside of one.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    run = subprocess.run(
        [*watched, *tests, "--timeout", "0", str(HERE / "test_backends.py")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    told = run.stdout[-4000:] + run.stderr[-2000:]
    assert run.returncode != FOUND, told
    assert run.returncode == 0, told
    assert " passed" in run.stdout, "no kernel was run:\n" + told
