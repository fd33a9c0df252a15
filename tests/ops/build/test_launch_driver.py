"""The driver launcher, on a driver that runs the emulated kernel; bindings and cubin are real.

The driver must be on the library path when a process starts, so each test runs a program.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import emulated
import pytest

from ape_cuda_ops.build import nvrtc
from ape_cuda_ops.build.launcher import Kernel

pytestmark = [
    pytest.mark.skipif(not emulated.has_compiler(), reason="no g++"),
    pytest.mark.skipif(
        importlib.util.find_spec("cuda") is None, reason="cuda-bindings is not installed"
    ),
]

PROGRAM = """
import contextlib, types, sys
import torch
from cases import TOLERANCE, exact, fused, relative

stream = types.SimpleNamespace(cuda_stream=0x55)
torch.cuda.is_available = lambda: True
torch.cuda.device = lambda device: contextlib.nullcontext()
torch.cuda.current_device = lambda: 3
torch.cuda.current_stream = lambda: stream
torch.cuda.get_device_capability = lambda index: (9, 0)

from ape_cuda_ops.backends import reference
from ape_cuda_ops.backends.cuda import CUDA
from ape_cuda_ops.build.launch_driver import driver_version
CUDA.prepare()
value, points, offsets, logits = fused(queries=9)
shapes = ((7, 5), (4, 3))
out = CUDA.forward(value, shapes, offsets, logits, points)
expected = reference.msda_fused(*exact((value, points, offsets, logits)), shapes)
print(relative(out, expected) < TOLERANCE[torch.float32], driver_version())
"""


def run(tmp_path, **environment):
    kernel = Kernel("msda.cu", "msda_forward<float, float, 16, 2, 3, 2>", (1, 1, 1), 128)
    nvrtc.compile_kernel(kernel.source, kernel.name, 90)  # NVRTC itself asks the real driver
    library = emulated.build(emulated.source_of(kernel))
    source = Path(__file__).with_name("fake_driver.cpp")
    driver = tmp_path / "libcuda.so.1"
    subprocess.run(
        ["g++", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", str(source), "-o", str(driver)],
        check=True,
    )
    paths = os.pathsep.join([str(Path(emulated.__file__).parent), *sys.path])
    libraries = f"{tmp_path}{os.pathsep}{os.environ.get('LD_LIBRARY_PATH', '')}"
    given = {"LD_LIBRARY_PATH": libraries, "LAUNCH": str(library), "PYTHONPATH": paths}
    given["APE_STREAM_LAUNCHER"] = "driver"
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **given, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_kernel_gets_its_structure_grid_stream_and_context(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    launch, result = done.stdout.splitlines()
    assert launch.startswith("_Z12msda_forwardI")
    assert launch.endswith("context 0x103 stream 0x55 shared 0 extra (nil)")
    assert result == "True 13.0"


def test_a_refused_launch_names_the_error(tmp_path):
    done = run(tmp_path, FAIL="1")
    assert "BackendError: CUDA driver error 701: made by the test" in done.stderr
