"""The device tests of every kernel, run again under compute-sanitizer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = ("test_msda.py", "test_nms.py", "test_mask_pack.py")
TOOL = shutil.which("compute-sanitizer")
FOUND = 9


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.skipif(TOOL is None, reason="compute-sanitizer is not on the path: it is in CUDA")
@pytest.mark.parametrize("check", ["memcheck", "racecheck"])
def test_kernels_stay_inside_their_memory_and_do_not_race(check):
    watched = [TOOL, "--tool", check, "--error-exitcode", str(FOUND)]
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-k", "cuda"]
    # torch allocates large blocks: an index past the end of a tensor would stay inside of one.
    # The kernels are watched, not CuPy: the tool reports failed calls of any library.
    environment = os.environ | {
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
        "APE_STREAM_LAUNCHER": "driver",
    }
    run = subprocess.run(
        [
            *watched,
            *tests,
            "--timeout",
            "0",
            *(str(Path(__file__).with_name(name)) for name in TESTS),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    output = run.stdout[-4000:] + run.stderr[-2000:]
    assert run.returncode != FOUND, output
    assert run.returncode == 0, output
    assert " passed" in run.stdout, "no kernel was run:\n" + output
