"""Loads compiled CUDA kernels and starts them on torch's current stream.

Nothing is copied or allocated here: torch owns every tensor, and a kernel receives one structure
by value that holds their addresses. The first call of a kernel compiles and loads it, so call once
before you capture a CUDA graph.
"""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ape_cuda_ops.build import nvrtc
from ape_cuda_ops.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DriverLauncher", "Kernel", "Launcher", "driver_version"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """Which kernel to start, and with how many threads."""

    source: str
    """File name in ``csrc/``."""
    name: str
    """Name expression with its template arguments."""
    grid: tuple[int, int, int]
    """Number of blocks."""
    threads: int
    """Threads of a block."""


class Launcher(Protocol):
    """Starts kernels."""

    def prepare(self) -> None:
        """Raise BackendError when this launcher cannot work here."""

    def start(self, kernel: Kernel, arguments: ctypes.Structure, device: torch.device) -> None:
        """Enqueue one kernel on the device's current stream; does not wait."""


class DriverLauncher:
    """Starts kernels through the CUDA driver."""

    def prepare(self) -> None:
        """Check for a device, its driver and NVRTC.

        Raises:
            BackendError: One of them is missing.
        """
        if not torch.cuda.is_available():
            raise BackendError("torch sees no CUDA device")
        _driver()
        nvrtc.version()

    def start(self, kernel: Kernel, arguments: ctypes.Structure, device: torch.device) -> None:
        """Enqueue one kernel on torch's current stream.

        Raises:
            BackendError: The kernel cannot be compiled, loaded or started.
        """
        with torch.cuda.device(device):
            index = torch.cuda.current_device()
            stream = torch.cuda.current_stream().cuda_stream
            # In a new thread no context may be current yet. torch uses the primary one.
            _result(_driver().cuCtxSetCurrent(_context(index)))
            function = _function(kernel.source, kernel.name, index)
            _launch(function, kernel.grid, kernel.threads, stream, arguments)


def driver_version() -> str:
    """The CUDA version of the driver, such as ``13.0``.

    Raises:
        BackendError: The bindings or the driver are missing.
    """
    number = _result(_driver().cuDriverGetVersion())
    return f"{number // 1000}.{number % 1000 // 10}"


@cache
def _driver() -> Any:
    """The bindings of the CUDA driver.

    Raises:
        BackendError: The bindings or the driver are missing.
    """
    try:
        driver = importlib.import_module("cuda.bindings.driver")
        driver.cuInit(0)  # loads the library
    except (ImportError, RuntimeError) as error:
        cause = str(error).partition("\n")[0]
        raise BackendError(
            f"the CUDA driver cannot be loaded ({cause}): "
            "pip install 'ape-stream[cuda13]', or [cuda12]"
        ) from error
    return driver


def _result(answer: tuple[Any, ...]) -> Any:
    """What a call of the driver returned after its result code.

    Raises:
        BackendError: The code is not success.
    """
    code, *results = answer
    if code:
        text = _driver().cuGetErrorString(code)[1] or b"unknown"
        raise BackendError(f"CUDA driver error {int(code)}: {text.decode()}")
    return results[0] if results else None


@cache
def _context(index: int) -> Any:
    """The primary context of a device, which torch uses too."""
    return _result(_driver().cuDevicePrimaryCtxRetain(index))


@cache
def _function(source: str, name: str, index: int) -> Any:
    """The loaded kernel of one device; its context must be current."""
    major, minor = torch.cuda.get_device_capability(index)
    compiled = nvrtc.compile_kernel(source, name, major * 10 + minor)
    module = _result(_driver().cuModuleLoadData(compiled.cubin))
    return _result(_driver().cuModuleGetFunction(module, compiled.name.encode()))


def _launch(
    function: Any,
    grid: Sequence[int],
    threads: int,
    stream: int,
    arguments: ctypes.Structure,
) -> None:
    """Start a kernel that takes one structure by value: the driver copies it before returning."""
    parameters = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
    block = (threads, 1, 1)
    _result(
        _driver().cuLaunchKernel(
            function, *grid, *block, 0, stream, ctypes.addressof(parameters), 0
        )
    )
