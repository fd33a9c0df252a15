"""Starts kernels through the CUDA driver, called by cuda-bindings."""

from __future__ import annotations

import ctypes
import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from ape_cuda_ops.build import nvrtc
from ape_cuda_ops.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_cuda_ops.build.launcher import Kernel

__all__ = ["DriverLauncher", "driver_version"]


class DriverLauncher:
    """Starts kernels through the CUDA driver."""

    name = "driver"

    def prepare(self) -> None:
        """Check for the bindings and the driver.

        Raises:
            BackendError: one of them is missing.
        """
        _driver()

    def start(self, kernel: Kernel, arguments: ctypes.Structure, device: torch.device) -> None:
        """Enqueue one kernel on torch's current stream.

        Raises:
            BackendError: the kernel cannot be compiled, loaded or started.
        """
        with torch.cuda.device(device):
            index = torch.cuda.current_device()
            stream = torch.cuda.current_stream().cuda_stream
            # In a new thread no context may be current yet. torch uses the primary one.
            _result(_driver().cuCtxSetCurrent(_context(index)))
            function = _function(kernel.source, kernel.name, index)
            _launch(function, kernel.grid, kernel.threads, stream, arguments)


def driver_version() -> str:
    """The CUDA version of the driver, such as `13.0`.

    Raises:
        BackendError: the bindings or the driver are missing.
    """
    number = _result(_driver().cuDriverGetVersion())
    return f"{number // 1000}.{number % 1000 // 10}"


@cache
def _driver() -> Any:
    """The bindings of the CUDA driver.

    Raises:
        BackendError: the bindings or the driver are missing.
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
        BackendError: the code is not success.
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
    compiled = nvrtc.compile_kernel(source, name, nvrtc.architecture(index))
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
