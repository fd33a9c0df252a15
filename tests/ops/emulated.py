"""A launcher that runs the CUDA source on the CPU, by the fibers of emulation/emu.hpp."""

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import ape_cuda_ops
from ape_cuda_ops.backends.cuda import CudaKernels

HERE = Path(__file__).parent
SOURCES = Path(ape_cuda_ops.__file__).parent / "csrc"
ARGUMENTS = {
    "msda_forward": "MsdaArguments",
    "msda_backward": "MsdaArguments",
    "nms_grouped": "NmsArguments",
    "mask_pack": "MaskArguments",
}
SCHEDULES = {"forward": 0, "reverse": 1, "random": 2}
FOLDER = Path(tempfile.mkdtemp(prefix="ape_emu-"))


def has_compiler():
    return shutil.which("g++") is not None


def source_of(kernel, edit=None):
    text = (SOURCES / kernel.source).read_text()
    if edit is not None:
        changed = text.replace(*edit)
        assert changed != text, "the planted fault must change the source"
        text = changed
    kind = ARGUMENTS[kernel.name.split("<")[0]]
    prelude = (SOURCES / "device.cuh").read_text()
    return f"""#include "emu.hpp"
{prelude}
{text}
extern "C" void start(
    const void* arguments, const unsigned* grid, unsigned threads, int schedule) {{
  emu::launch<{kind}>(&{kernel.name}, arguments, grid, threads, schedule);
}}
"""


@cache
def build(text, flags=(), *, program=None):
    """Compile a text once, to a shared library, or to a program when `program` holds its main."""
    key = hashlib.sha256((text + str(program) + " ".join(flags)).encode()).hexdigest()[:24]
    source = FOLDER / f"{key}.cpp"
    target = FOLDER / (key if program else f"{key}.so")
    source.write_text(text + (program or ""))
    kind = () if program else ("-shared", "-fPIC")
    command = ["g++", "-std=c++17", "-O1", "-w", f"-I{HERE / 'emulation'}", *kind, *flags]
    subprocess.run([*command, str(source), "-o", str(target)], check=True)
    return target


class EmulatedLauncher:
    """Stands in for the driver: the same arguments and grid, in the memory of the CPU."""

    def __init__(self, schedule="forward", edit=None, flags=()):
        self.schedule, self.edit, self.flags = schedule, edit, flags

    def prepare(self):
        pass

    def start(self, kernel, arguments, device):
        assert device.type == "cpu"
        library = ctypes.CDLL(str(build(source_of(kernel, self.edit), self.flags)))
        grid = (ctypes.c_uint * 3)(*kernel.grid)
        library.start(ctypes.byref(arguments), grid, kernel.threads, SCHEDULES[self.schedule])


def kernels(schedule="forward", edit=None, flags=()):
    return CudaKernels(EmulatedLauncher(schedule, edit, flags))
