"""Starts compiled CUDA kernels on torch's current stream: by CuPy, or by the driver alone.

Nothing is copied and nothing allocated here: torch owns every tensor, and a kernel receives
one structure by value with their addresses. A first call compiles and loads, so a CUDA graph
is captured after one call outside of it.
"""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch

from ape_cuda_ops.build.nvrtc import compile_kernel
from ape_cuda_ops.errors import BackendError

__all__ = [
    "CupyLauncher",
    "DriverLauncher",
    "Kernel",
    "Launcher",
    "MaskArguments",
    "MsdaArguments",
    "NmsArguments",
]


class MsdaArguments(ctypes.Structure):
    """``struct Arguments`` of msda.cu, which says what each field is."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in (
                "value",
                "reference",
                "positions",
                "mixing",
                "output",
                "output_grad",
                "value_grad",
                "position_grad",
                "mixing_grad",
            )
        ),
        *((name, ctypes.c_int64) for name in ("B", "S", "Q")),
        *((name, ctypes.c_int32) for name in ("H", "grid_levels")),
        *((name, ctypes.c_int32 * 8) for name in ("width", "height", "first")),
        ("tiles", ctypes.c_int32 * 9),
    )


class NmsArguments(ctypes.Structure):
    """``struct NmsArguments`` of post.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("boxes", "starts", "keep")),
        ("G", ctypes.c_int64),
        ("threshold", ctypes.c_float),
    )


class MaskArguments(ctypes.Structure):
    """``struct MaskArguments`` of post.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("logits", "words")),
        ("N", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("h", "w", "H", "W", "words_per_line")),
        *((name, ctypes.c_float) for name in ("scale_y", "scale_x", "threshold")),
    )


@dataclass(frozen=True, slots=True)
class Kernel:
    """Which kernel to start, and how wide."""

    source: str
    """File name beside this module."""
    name: str
    """Name expression with its template arguments."""
    grid: tuple[int, int, int]
    """Blocks."""
    threads: int
    """Threads of a block."""


class Launcher(Protocol):
    """Starts kernels."""

    def prepare(self) -> None:
        """Raise BackendError when this launcher cannot work here."""

    def start(self, kernel: Kernel, arguments: ctypes.Structure, device: torch.device) -> None:
        """Enqueue one kernel on the device's current stream; does not wait."""


def _architecture(device: torch.device) -> int:
    """Compute capability times ten."""
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor


class CupyLauncher:
    """Launches through CuPy's RawModule."""

    def prepare(self) -> None:
        """Raise BackendError when CuPy or a device is missing."""
        if not torch.cuda.is_available():
            raise BackendError("torch sees no CUDA device")
        try:
            importlib.import_module("cupy")
        except ImportError as error:
            raise BackendError(
                f"CuPy cannot be imported ({error}): pip install cupy-cuda13x"
            ) from error

    @staticmethod
    @cache
    def _function(source: str, name: str, architecture: int, index: int) -> Any:  # noqa: ARG004
        """The loaded kernel; one per device index, whose context owns it."""
        cupy: Any = importlib.import_module("cupy")
        compiled = compile_kernel(source, name, architecture)
        module = cupy.cuda.function.Module()
        module.load(compiled.cubin)
        return module.get_function(compiled.name)

    def start(self, kernel: Kernel, arguments: ctypes.Structure, device: torch.device) -> None:
        """Enqueue one kernel on torch's current stream."""
        cupy: Any = importlib.import_module("cupy")
        packed = np.frombuffer(bytes(arguments), dtype=np.dtype(type(arguments)))[0]
        index = torch.cuda.current_device() if device.index is None else device.index
        stream = torch.cuda.current_stream(device).cuda_stream
        with cupy.cuda.Device(index), cupy.cuda.ExternalStream(stream, index):
            function = self._function(kernel.source, kernel.name, _architecture(device), index)
            function(kernel.grid, (kernel.threads, 1, 1), (packed,))


class DriverLauncher:
    """Launches through the CUDA driver's C interface, with the NVRTC that torch brings."""

    def prepare(self) -> None:
        """Raise BackendError when a device or the driver is missing."""
        if not torch.cuda.is_available():
            raise BackendError("torch sees no CUDA device")
        _driver()

    @staticmethod
    @cache
    def _function(source: str, name: str, architecture: int, index: int) -> ctypes.c_void_p:  # noqa: ARG004
        """The loaded kernel; one per device index, whose context owns it."""
        compiled = compile_kernel(source, name, architecture)
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        _check(_driver().cuModuleLoadData(ctypes.byref(module), compiled.cubin))
        _check(
            _driver().cuModuleGetFunction(ctypes.byref(function), module, compiled.name.encode())
        )
        return function

    def start(self, kernel: Kernel, arguments: ctypes.Structure, device: torch.device) -> None:
        """Enqueue one kernel on torch's current stream."""
        index = torch.cuda.current_device() if device.index is None else device.index
        with torch.cuda.device(index):
            torch.cuda.current_blas_handle()  # makes torch's context current in this thread
            function = self._function(kernel.source, kernel.name, _architecture(device), index)
            stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
            parameters = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
            block = (kernel.threads, 1, 1)
            _check(
                _driver().cuLaunchKernel(
                    function, *kernel.grid, *block, 0, stream, parameters, None
                )
            )


@cache
def _driver() -> ctypes.CDLL:
    """The CUDA driver's library.

    Raises:
        BackendError: There is none.
    """
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(f"the CUDA driver cannot be loaded: {error}") from error


def _check(code: int) -> None:
    """Turn a driver's result code that is not success into an error."""
    if code:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(code, ctypes.byref(text))
        raise BackendError(f"CUDA driver error {code}: {(text.value or b'unknown').decode()}")
