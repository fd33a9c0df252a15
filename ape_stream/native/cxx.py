"""Compiles C++ sources with the user's compiler, once per machine and source."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ape_stream.errors import CompileError
from ape_stream.native import cache as store

__all__ = ["architecture_flags", "compiler", "load", "load_if_possible", "shared_library"]

# Nothing here lets the compiler reorder sums or ignore NaN: locations that are NaN read zero.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fopenmp",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",  # vectors never cross the border of the library
)
_V3 = frozenset({"abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"})
X86_LEVELS = {
    "x86-64-v4": _V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
    "x86-64-v3": _V3,
}
"""What a processor needs for each level of the x86-64 psABI, as Linux names it, best first."""
CPU_INFO = Path("/proc/cpuinfo")
TIMEOUT_S = 300.0
_log = logging.getLogger("ape_stream.notice")  # which the command line prints


def architecture_flags() -> tuple[str, ...]:
    """Compiler flags for the processor this process runs on."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return ()  # arm64: the compiler's default has 128-bit vectors
    features = _features()
    fit = (level for level, needed in X86_LEVELS.items() if needed <= features)
    return (f"-march={next(fit, 'x86-64-v2')}",)


@cache
def _features() -> frozenset[str]:
    """What Linux says that this processor has; nothing on other systems."""
    try:
        with CPU_INFO.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:  # the first core's: the file of a large machine is long
                if line.startswith("flags"):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def compiler() -> str:
    """Path of the C++ compiler: `$CXX`, else the first of c++, g++ and clang++.

    Raises:
        CompileError: there is none.
    """
    chosen = os.environ.get("CXX")
    for name in (chosen,) if chosen else ("c++", "g++", "clang++"):
        path = shutil.which(name)
        if path:
            return path
    searched = f"CXX={chosen!r}" if chosen else "c++, g++ or clang++"
    raise CompileError(f"no C++ compiler found ({searched}): install one or set CXX")


@cache
def _version(path: str) -> str:
    """Output of `--version`; a new compiler compiles again."""
    return _run([path, "--version"])


def _run(command: list[str]) -> str:
    """Standard output of a command.

    Raises:
        CompileError: it failed; the message has the first lines of its standard error.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the user's compiler on our own source
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompileError(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        cause = " | ".join(done.stderr.strip().splitlines()[:5]) or "no message"
        raise CompileError(f"{command[0]} failed with exit code {done.returncode}: {cause}")
    return done.stdout


def shared_library(source: Path, extra: tuple[str, ...] = ()) -> Path:
    """Compile one source file, or take it from the disk cache if it is there.

    Args:
        source: A C++ file; it may include the headers in its folder.
        extra: Further compiler flags.

    Returns:
        Path of a shared library for this processor.

    Raises:
        CompileError: there is no compiler, it failed, or the cache cannot be written.
    """
    path = compiler()
    flags = (*FLAGS, *architecture_flags(), *extra)
    # The headers it may include belong to the key, as do the compiler and the flags.
    read = [source, *sorted(source.parent.glob("*.h"))]
    text = "\n".join(file.read_text(encoding="utf-8") for file in read)
    target = store.file_for(source.stem, ".so", text, path, _version(path), *flags)
    if target.exists():
        return target
    _log.info("compiling %s for this processor, once: it takes some seconds", source.name)
    # Compiled elsewhere and moved: a second process never loads half a library.
    with tempfile.TemporaryDirectory(prefix="ape_stream-") as folder:
        built = Path(folder) / target.name
        _run([path, *flags, str(source), "-o", str(built)])
        try:
            store.keep(target, built.read_bytes())
        except OSError as error:
            raise CompileError(
                f"cannot keep compiled kernels in {target.parent}: {error}; set APE_STREAM_CACHE"
            ) from error
    return target


def load(source: Path, *flags: str) -> ctypes.CDLL:
    """The library of one source file, in this process; compiled first where it is not there.

    Args:
        source: See `shared_library`.
        flags: Further compiler flags.

    Raises:
        CompileError: it cannot be compiled or loaded here.
    """
    path = shared_library(source, flags)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CompileError(f"cannot load {path}: {error}") from error


def load_if_possible(source: Path, *flags: str) -> ctypes.CDLL | None:
    """As `load`; None, and a warning, where NumPy has to do it."""
    try:
        return load(source, *flags)
    except CompileError as error:
        _log.warning("%s runs in NumPy, several times slower: %s", source.stem, error)
        return None
