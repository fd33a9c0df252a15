"""Compiles CUDA sources to machine code by NVRTC, with or without a GPU, and reads the result."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ape_cuda_ops.build import cache as store
from ape_cuda_ops.errors import CompileError

__all__ = ["Compiled", "compile_kernel", "find_library", "text_bytes", "version"]

FOLDER = Path(__file__).parents[1] / "csrc"
PRELUDE = FOLDER / "device.cuh"
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
    """What the assembler said; empty when the code came from the disk cache."""

    def resources(self) -> tuple[int, int]:
        """Registers per thread and bytes spilled, read from the log.

        Raises:
            CompileError: The log does not hold them.
        """
        found = _RESOURCES.search(self.log)
        if found is None:
            raise CompileError(f"no resource report for {self.name}: {self.log[:300]!r}")
        return int(found["registers"]), int(found["stores"]) + int(found["loads"])


def find_library() -> str:
    """Path or name of libnvrtc: the wheel's, else the system's.

    Raises:
        CompileError: There is none.
    """
    parents = []
    for package in ("nvidia", "nvidia.cuda_nvrtc"):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        parents += list(spec.submodule_search_locations or ()) if spec else []
    for parent in parents:
        found = sorted(Path(parent).glob("**/lib/libnvrtc.so.*"))
        if found:
            return str(found[-1])
    system = ctypes.util.find_library("nvrtc")
    if system is None:
        raise CompileError("no NVRTC found: pip install nvidia-cuda-nvrtc, or install CUDA")
    return system


@cache
def _library() -> ctypes.CDLL:
    """The loaded libnvrtc.

    Raises:
        CompileError: It is missing or cannot be loaded.
    """
    path = find_library()
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise CompileError(f"cannot load {path}: {error}") from error
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def version() -> tuple[int, int]:
    """Major and minor version of NVRTC.

    Raises:
        CompileError: There is none.
    """
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def _check(code: int) -> None:
    """Turn a result code that is not success into an error."""
    if code:
        raise CompileError(_library().nvrtcGetErrorString(code).decode())


def _bytes_of(program: ctypes.c_void_p, what: str) -> bytes:
    """One of the program's outputs: ``CUBIN`` or ``ProgramLog``."""
    library, size = _library(), ctypes.c_size_t()
    _check(getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def compile_kernel(source: str, kernel: str, architecture: int, *, reuse: bool = True) -> Compiled:
    """Machine code of one kernel.

    Args:
        source: file name beside this module; ``device.cuh`` is put before it.
        kernel: name expression, such as ``msda_forward<Half, Half, 32, 5, 4, 2>``.
        architecture: compute capability times ten, such as 90.
        reuse: take it from the disk cache when it is there, and keep it there.

    Returns:
        The kernel; compiled to a cubin, not PTX, so a driver older than NVRTC can load it.

    Raises:
        CompileError: NVRTC is missing or refuses; the message holds the first lines of its log.
    """
    text = "\n".join(path.read_text(encoding="utf-8") for path in (PRELUDE, FOLDER / source))
    options = (f"--gpu-architecture=sm_{architecture}", "--std=c++17", "--ptxas-options=-v")
    kind = ".".join(map(str, version()))
    file = store.file_for(Path(source).stem, ".cubin", text, kernel, kind, *options)
    if reuse and file.exists():
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
    """One NVRTC program from text to cubin."""
    library, program = _library(), ctypes.c_void_p()
    _check(
        library.nvrtcCreateProgram(
            ctypes.byref(program), text.encode(), file.encode(), 0, None, None
        )
    )
    try:
        _check(library.nvrtcAddNameExpression(program, kernel.encode()))
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = library.nvrtcCompileProgram(program, len(options), array)
        log = _bytes_of(program, "ProgramLog").rstrip(b"\0").decode()
        if failed:
            lines = " | ".join(log.strip().splitlines()[:5])
            raise CompileError(f"NVRTC refused {kernel} for {options[0]}: {lines}")
        lowered = ctypes.c_char_p()
        _check(library.nvrtcGetLoweredName(program, kernel.encode(), ctypes.byref(lowered)))
        name = (lowered.value or b"").decode()
        return Compiled(name, _bytes_of(program, "CUBIN"), log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def text_bytes(cubin: bytes) -> int:
    """Size of the machine code in a cubin: 16 bytes an instruction (ELF64 section headers)."""
    table = int.from_bytes(cubin[40:48], "little")
    size = int.from_bytes(cubin[58:60], "little")
    count, names = (int.from_bytes(cubin[at : at + 2], "little") for at in (60, 62))
    headers = [cubin[table + i * size : table + (i + 1) * size] for i in range(count)]
    strings = int.from_bytes(headers[names][24:32], "little")
    total = 0
    for header in headers:
        start = strings + int.from_bytes(header[:4], "little")
        if cubin[start : start + 6] == b".text.":
            total += int.from_bytes(header[32:40], "little")
    return total
