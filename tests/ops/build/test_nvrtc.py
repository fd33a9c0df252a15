"""Every kernel compiles for every architecture, within budget, without a GPU."""

import pytest
import torch

from ape_cuda_ops.backends.cuda import forward_name
from ape_cuda_ops.build import nvrtc
from ape_cuda_ops.errors import CompileError

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
BRANCHES = (75, 80, 90, 120)
"""One architecture for each branch in the sources (__CUDA_ARCH__), and the newest."""
FORWARD = forward_name(torch.bfloat16, torch.bfloat16, 32, 5, 4, 2)
KERNELS = (
    ("msda.cu", FORWARD),
    ("msda.cu", FORWARD.replace("Bfloat16", "Half")),
    ("msda.cu", FORWARD.replace("Bfloat16", "float")),
    ("msda.cu", FORWARD.replace("forward", "backward")),
    ("post.cu", "nms_grouped"),
    ("post.cu", "mask_pack<Half>"),
)


@pytest.fixture(scope="module", autouse=True)
def _library():
    try:
        nvrtc.version()
    except CompileError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "kernel", "architecture"),
    [("msda.cu", FORWARD, architecture) for architecture in ARCHITECTURES]
    + [(*kernel, architecture) for kernel in KERNELS[1:] for architecture in BRANCHES],
)
def test_compiles_without_spilling(source, kernel, architecture):
    compiled = nvrtc.compile_kernel(source, kernel, architecture, reuse=False)
    registers, spilled = compiled.resources()
    assert spilled == 0
    assert registers <= 128


def test_forward_keeps_its_budget_on_sm_90():
    compiled = nvrtc.compile_kernel("msda.cu", FORWARD, 90, reuse=False)
    registers, spilled = compiled.resources()
    queries_of_a_warp = 8  # 32 lanes / (32 numbers / 8 a lane); the loop over samples is unrolled
    assert instructions(compiled.cubin) / queries_of_a_warp <= 340
    assert registers <= 64
    assert spilled == 0


def instructions(cubin):
    """Count the instructions in a cubin: 16 bytes each in its `.text.*` ELF64 sections."""
    number = lambda start, size: int.from_bytes(cubin[start : start + size], "little")  # noqa: E731
    table, size, count, names = number(40, 8), number(58, 2), number(60, 2), number(62, 2)
    headers = [table + i * size for i in range(count)]
    strings = number(headers[names] + 24, 8)
    texts = [h for h in headers if cubin[strings + number(h, 4) :].startswith(b".text.")]
    return sum(number(h + 32, 8) for h in texts) / 16


def test_a_second_compilation_comes_from_the_disk():
    first = nvrtc.compile_kernel("post.cu", "nms_grouped", 80)
    again = nvrtc.compile_kernel("post.cu", "nms_grouped", 80)
    assert (again.name, again.cubin) == (first.name, first.cubin)
    assert again.log == ""


def test_a_refused_kernel_says_why():
    with pytest.raises(CompileError, match="no_such_kernel"):
        nvrtc.compile_kernel("post.cu", "no_such_kernel", 90, reuse=False)
