"""Compiles C++ sources with the user's compiler, once per machine and source."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from ape_cuda_ops.build import cache as store
from ape_cuda_ops.errors import CompileError

__all__ = ["architecture_flags", "compiler", "shared_library"]

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
X86_LEVELS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}
"""Vector extensions of the processor: torch's name and the compiler's."""
TIMEOUT_S = 300.0


def architecture_flags() -> tuple[str, ...]:
    """Compiler flags for the processor this process runs on."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return ()  # arm64: the compiler's default has 128-bit vectors
    level = X86_LEVELS.get(torch.backends.cpu.get_cpu_capability(), "x86-64-v2")
    return (f"-march={level}",)


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
