"""The tests of the tests: planted faults in the CUDA source must be seen."""

import ctypes
import subprocess

import emulated
import pytest
import torch
from cases import TOLERANCE, exact, fused, relative

from ape_cuda_ops.backends import reference
from ape_cuda_ops.build.launcher import Kernel, MsdaArguments

SHAPES = ((7, 5), (4, 3))
pytestmark = pytest.mark.skipif(not emulated.has_compiler(), reason="no g++")

BARRIER = ("        __syncwarp();\n        APE_UNROLL\n        for (int n = 0;",
           "        APE_UNROLL\n        for (int n = 0;")  # fmt: skip


def run(schedule="forward", edit=None):
    return emulated.kernels(schedule, edit).msda_fused(*fused(queries=9), SHAPES)


def error(schedule="forward", edit=None):
    wanted = reference.msda_fused(*exact(fused(queries=9)), SHAPES)
    return relative(run(schedule, edit), wanted)


def test_every_schedule_gives_the_same_bits():
    first = run("forward")
    assert torch.equal(first, run("reverse"))
    assert torch.equal(first, run("random"))


def test_a_missing_barrier_is_seen():
    errors = [error(schedule, BARRIER) for schedule in emulated.SCHEDULES]
    assert max(errors) > 100 * TOLERANCE[torch.float32]


MAIN = """
#include <cstdio>
int main(int count, char** names) {
  const int D = 16, S = 12, Q = 5, N = 3;
  std::vector<float> value(S * D, 1.0f), reference(Q * 2, %s), offsets(Q * N * 2, 0.25f);
  std::vector<float> logits(Q * N, 0.0f), output(Q * D);
  Arguments a = {};
  a.value = value.data(), a.reference = reference.data(), a.positions = offsets.data();
  a.mixing = logits.data(), a.output = output.data();
  a.B = 1, a.S = S, a.Q = Q, a.H = 1, a.width[0] = 4, a.height[0] = 3;
  const unsigned grid[3] = {1, 1, 1};
  start(&a, grid, 128, 0);
  std::printf("%%f\\n", output[0]);
}
"""


def sanitised(reference_at, edit=None):
    """Run one launch under ASan and UBSan; the finished process."""
    kernel = Kernel("msda.cu", "msda_forward<float, float, 16, 1, 3, 2>", (1, 1, 1), 128)
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g0")
    program = emulated.build(emulated.source_of(kernel, edit), flags, program=MAIN % reference_at)
    return subprocess.run([str(program)], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("reference_at", ["0.5f", "0.999f", "-3e8f", "NAN"])
def test_sanitisers_find_the_source_clean(reference_at):
    done = sanitised(reference_at)
    assert done.returncode == 0, done.stderr


def test_an_index_one_past_the_end_is_seen():
    past = ("n.high = floor + 1 < count ? floor + 1 : count - 1;", "n.high = floor + 1;")
    done = sanitised("0.999f", past)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


def test_arguments_have_the_size_the_kernel_reads():
    assert ctypes.sizeof(MsdaArguments) == 9 * 8 + 3 * 8 + 2 * 4 + 3 * 32 + 9 * 4 + 4
