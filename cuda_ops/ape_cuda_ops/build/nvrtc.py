"""Compiles CUDA sources to machine code by NVRTC; needs no GPU."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ape_cuda_ops.errors import CompileError
from ape_stream.native import cache as store

__all__ = ["Compiled", "architecture", "compile_kernel", "version"]

FOLDER = Path(__file__).parents[1] / "csrc"
PRELUDE = FOLDER / "device.cuh"
# What ptxas reports with -v for one kernel.
_RESOURCES = re.compile(
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """One kernel in machine code."""

    name: str
    """Its symbol in the cubin."""
    cubin: bytes
    """An ELF file for one architecture."""
    log: str
    """Report of the assembler; empty when the code came from the disk cache."""

    def resources(self) -> tuple[int, int]:
        """Registers per thread and bytes spilled, read from the log.

        Raises:
            CompileError: the log does not contain them.
        """
        found = _RESOURCES.search(self.log)
        if found is None:
            raise CompileError(f"no resource report for {self.name}: {self.log[:300]!r}")
        return int(found["registers"]), int(found["stores"]) + int(found["loads"])


@cache
def _nvrtc() -> Any:
    """The bindings of NVRTC, of the CUDA version that torch has.

    Raises:
        CompileError: the bindings or NVRTC are not installed.
    """
    try:
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
        nvrtc.nvrtcVersion()  # loads the library
    except (ImportError, RuntimeError) as error:
        cause = str(error).partition("\n")[0]
        raise CompileError(
            f"NVRTC cannot be loaded ({cause}): pip install 'ape-stream[cuda13]', or [cuda12]"
        ) from error
    return nvrtc


def version() -> tuple[int, int]:
    """Major and minor version of NVRTC.

    Raises:
        CompileError: NVRTC is not installed.
    """
    _, major, minor = _nvrtc().nvrtcVersion()
    return major, minor


def architecture(index: int) -> int:
    """Compute capability of a device times ten, such as 90."""
    major, minor = torch.cuda.get_device_capability(index)
    return major * 10 + minor


def _result(answer: tuple[Any, ...]) -> Any:
    """What a call of NVRTC returned after its result code.

    Raises:
        CompileError: the code is not success.
    """
    code, *results = answer
    if code:
        raise CompileError(_nvrtc().nvrtcGetErrorString(code)[1].decode())
    return results[0] if results else None


def _output(program: Any, name: str) -> bytes:
    """One output of a program: `CUBIN` or `ProgramLog`."""
    size = _result(getattr(_nvrtc(), f"nvrtcGet{name}Size")(program))
    buffer = bytearray(size)
    _result(getattr(_nvrtc(), f"nvrtcGet{name}")(program, buffer))
    return bytes(buffer)


def compile_kernel(source: str, kernel: str, architecture: int, *, reuse: bool = True) -> Compiled:
    """Machine code of one kernel.

    Args:
        source: File name in `csrc/`; `device.cuh` is put before its text.
        kernel: Name expression, such as `msda_forward<Half, Half, 32, 5, 4, 2>`.
        architecture: Compute capability times ten, such as 90.
        reuse: Read it from the disk cache if it is there, and write it there if not.

    Returns:
        The kernel as a cubin, not PTX, so a driver older than NVRTC can load it.

    Raises:
        CompileError: NVRTC is missing or failed; the message has the first lines of its log.
    """
    text = "\n".join(path.read_text(encoding="utf-8") for path in (PRELUDE, FOLDER / source))
    options = (f"--gpu-architecture=sm_{architecture}", "--std=c++17", "--ptxas-options=-v")
    compiler = ".".join(map(str, version()))
    file = store.file_for(Path(source).stem, ".cubin", text, kernel, compiler, *options)
    if reuse and file.exists():
        # In the file the symbol comes first: only the compiler knows how it mangled the name.
        name, _, cubin = file.read_bytes().partition(b"\0")
        return Compiled(name.decode(), cubin, "")
    compiled = _compile(text, source, kernel, options)
    if reuse:
        try:
            store.keep(file, compiled.name.encode() + b"\0" + compiled.cubin)
        except OSError as error:
            raise CompileError(f"cannot keep kernels: {error}; set APE_STREAM_CACHE") from error
    return compiled


def _compile(text: str, file: str, kernel: str, options: tuple[str, ...]) -> Compiled:
    """One NVRTC program, from text to cubin."""
    nvrtc = _nvrtc()
    program = _result(nvrtc.nvrtcCreateProgram(text.encode(), file.encode(), 0, [], []))
    try:
        # Naming the instance makes NVRTC compile this one of the template.
        _result(nvrtc.nvrtcAddNameExpression(program, kernel.encode()))
        arguments = [option.encode() for option in options]
        (failed,) = nvrtc.nvrtcCompileProgram(program, len(arguments), arguments)
        log = _output(program, "ProgramLog").rstrip(b"\0").decode()  # also after a failure
        if failed:
            lines = " | ".join(log.strip().splitlines()[:5])
            raise CompileError(f"NVRTC cannot compile {kernel} for {options[0]}: {lines}")
        name = _result(nvrtc.nvrtcGetLoweredName(program, kernel.encode()))
        return Compiled(name.decode(), _output(program, "CUBIN"), log)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
