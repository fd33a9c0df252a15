"""Tests of the emulator: faults planted in the CUDA source must be found."""

import ctypes
import subprocess

import emulated
import pytest
import torch
from cases import TOLERANCE, exact, fused, relative

from ape_cuda_ops.backends import reference
from ape_cuda_ops.backends.cuda import MaskArguments, MsdaArguments, NmsArguments
from ape_cuda_ops.build.launcher import Kernel

SHAPES = ((7, 5), (4, 3))
pytestmark = pytest.mark.skipif(not emulated.has_compiler(), reason="no g++")

FORWARD = "msda_forward<float, float, 16, 1, 3, 2>"
BARRIER = ("        __syncwarp();\n        APE_UNROLL\n        for (int n = 0;",
           "        APE_UNROLL\n        for (int n = 0;")  # fmt: skip


def run(schedule="forward", edit=None):
    value, points, offsets, logits = fused(queries=9)
    return emulated.kernels(schedule, edit).forward(value, SHAPES, offsets, logits, points)


def error(schedule="forward", edit=None):
    expected = reference.msda_fused(*exact(fused(queries=9)), SHAPES)
    return relative(run(schedule, edit), expected)


def test_every_schedule_gives_the_same_bits():
    first = run("forward")
    assert torch.equal(first, run("reverse"))
    assert torch.equal(first, run("random"))


def test_a_missing_barrier_is_found():
    errors = [error(schedule, BARRIER) for schedule in emulated.SCHEDULES]
    assert max(errors) > 100 * TOLERANCE[torch.float32]


MAIN = """
#include <cstdio>
int main(int count, char** names) {
  const int D = 16, S = 12, Q = 5, N = 3;
  std::vector<float> value(S * D, 1.0f), reference(Q * 2, %s), offsets(Q * N * 2, 0.25f);
  std::vector<float> logits(Q * N, 0.0f), output(Q * D);
  MsdaArguments a = {};
  a.value = value.data(), a.reference = reference.data();
  a.offsets_or_locations = offsets.data(), a.logits_or_weights = logits.data();
  a.output = output.data();
  a.B = 1, a.S = S, a.Q = Q, a.H = 1, a.width[0] = 4, a.height[0] = 3;
  const unsigned grid[3] = {1, 1, 1};
  start(&a, grid, 128, 0);
  std::printf("%%f\\n", output[0]);
}
"""


def sanitised(reference_at, edit=None):
    """Run one launch under ASan and UBSan; the finished process."""
    kernel = Kernel("msda.cu", FORWARD, (1, 1, 1), 128)
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g0")
    program = emulated.build(emulated.source_of(kernel, edit), flags, program=MAIN % reference_at)
    return subprocess.run([str(program)], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("reference_at", ["0.5f", "0.999f", "-3e8f", "NAN"])
def test_sanitisers_find_no_fault_in_the_source(reference_at):
    done = sanitised(reference_at)
    assert done.returncode == 0, done.stderr


def test_an_index_past_the_end_is_found():
    past = ("taps.high = floor + 1 < count ? floor + 1 : count - 1;", "taps.high = floor + 1;")
    done = sanitised("0.999f", past)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


@pytest.mark.parametrize(
    ("source", "kernel", "structure"),
    [
        ("msda.cu", FORWARD, MsdaArguments),
        ("post.cu", "nms_grouped", NmsArguments),
        ("post.cu", "mask_pack<float>", MaskArguments),
    ],
)
def test_arguments_have_the_size_the_kernel_reads(source, kernel, structure):
    main = f'int main() {{ std::printf("%zu", sizeof({structure.__name__})); }}'
    text = emulated.source_of(Kernel(source, kernel, (1, 1, 1), 128))
    program = emulated.build(text, program=main)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == ctypes.sizeof(structure)
