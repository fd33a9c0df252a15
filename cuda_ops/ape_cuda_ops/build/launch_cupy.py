"""Starts kernels through CuPy."""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ape_cuda_ops.build import nvrtc
from ape_cuda_ops.errors import BackendError

if TYPE_CHECKING:
    from ape_cuda_ops.build.launcher import Kernel

__all__ = ["CupyLauncher"]

_INSTALL = "pip install 'ape-stream[cuda13]', or [cuda12]"


class CupyLauncher:
    """Starts kernels through `cupy.cuda`."""

    name = "cupy"

    def prepare(self) -> None:
        """Check for CuPy and a driver that is new enough for it.

        Raises:
            BackendError: one of them is missing or too old.
        """
        cupy = _cupy()
        try:
            cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise BackendError(f"CuPy finds no device: {error}") from error

    def start(self, kernel: Kernel, arguments: ctypes.Structure, device: torch.device) -> None:
        """Enqueue one kernel on torch's current stream.

        Raises:
            BackendError: the kernel cannot be compiled, loaded or started.
        """
        cuda = _cupy().cuda
        # CuPy passes a NumPy array of one element by value.
        structure = np.frombuffer(memoryview(arguments), f"V{ctypes.sizeof(arguments)}")
        with torch.cuda.device(device):
            index = torch.cuda.current_device()
            stream = _TorchStream(torch.cuda.current_stream().cuda_stream)
            try:
                with cuda.Device(index):
                    _function(kernel.source, kernel.name, index)(
                        kernel.grid,
                        (kernel.threads, 1, 1),
                        (structure,),
                        stream=cuda.Stream.from_external(stream),
                    )
            except (cuda.driver.CUDADriverError, cuda.runtime.CUDARuntimeError) as error:
                raise BackendError(f"CuPy: {error}") from error


@dataclass(frozen=True, slots=True)
class _TorchStream:
    """A stream in CUDA's stream protocol, which streams of older torch versions do not have."""

    pointer: int

    def __cuda_stream__(self) -> tuple[int, int]:
        """Version of the protocol, and the stream."""
        return 0, self.pointer


@cache
def _cupy() -> Any:
    """CuPy.

    Raises:
        BackendError: it is missing or too old.
    """
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        cause = str(error.__cause__ or error).partition("\n")[0]  # CuPy's own message is a page
        raise BackendError(f"CuPy cannot be imported ({cause}): {_INSTALL}") from error
    if not hasattr(cupy.cuda.Stream, "from_external"):
        raise BackendError(f"CuPy {cupy.__version__} is older than 14: {_INSTALL}")
    return cupy


@cache
def _function(source: str, name: str, index: int) -> Any:
    """The loaded kernel of one device, which must be CuPy's current one."""
    compiled = nvrtc.compile_kernel(source, name, nvrtc.architecture(index))
    module = _cupy().cuda.Module()
    module.load(compiled.cubin)
    return module.get_function(compiled.name)  # it keeps the module
