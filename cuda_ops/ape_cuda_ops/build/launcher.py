"""Chooses the launcher: CuPy where it is installed, else the CUDA driver through cuda-bindings.

A launcher loads the machine code of a kernel and starts it on torch's current stream. Nothing is
copied or allocated for that: torch owns every tensor, and a kernel receives one structure by value
that holds their addresses. The first call of a kernel compiles and loads it, so call once before
you capture a CUDA graph. `APE_STREAM_LAUNCHER=cupy` or `driver` forces one.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import torch

from ape_cuda_ops.build import nvrtc
from ape_cuda_ops.build.launch_cupy import CupyLauncher
from ape_cuda_ops.build.launch_driver import DriverLauncher
from ape_cuda_ops.errors import BackendError

if TYPE_CHECKING:
    import ctypes

__all__ = ["LAUNCHERS", "Choice", "Kernel", "Launcher", "chosen"]

FORCE = "APE_STREAM_LAUNCHER"
"""The environment variable that names the launcher to use."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Which kernel to start, and with how many threads."""

    source: str
    """File name in `csrc/`."""
    name: str
    """Name expression with its template arguments."""
    grid: tuple[int, int, int]
    """Number of blocks."""
    threads: int
    """Threads of a block."""


class Launcher(Protocol):
    """Starts kernels."""

    name: str
    """Its name in `APE_STREAM_LAUNCHER`."""

    def prepare(self) -> None:
        """Raise BackendError when this launcher cannot work here."""

    def start(self, kernel: Kernel, arguments: ctypes.Structure, device: torch.device) -> None:
        """Enqueue one kernel on the device's current stream; does not wait.

        Raises:
            BackendError: the kernel cannot be compiled, loaded or started.
        """


@dataclass(frozen=True, slots=True)
class Choice:
    """The launcher in use."""

    launcher: Launcher
    why: str
    """Why this one."""


LAUNCHERS: dict[str, Launcher] = {"cupy": CupyLauncher(), "driver": DriverLauncher()}


def chosen() -> Choice:
    """The launcher of this process; a warning says why CuPy is installed but not used.

    Raises:
        BackendError: there is no device or no NVRTC, or no launcher (or not the forced one) works.
    """
    return _choose(os.environ.get(FORCE) or None)


@cache
def _choose(forced: str | None) -> Choice:
    if forced is not None and forced not in LAUNCHERS:
        raise BackendError(f"{FORCE}={forced!r} does not exist: there is {', '.join(LAUNCHERS)}")
    if not torch.cuda.is_available():
        raise BackendError("torch sees no CUDA device")
    nvrtc.version()
    if forced is not None:
        LAUNCHERS[forced].prepare()
        return Choice(LAUNCHERS[forced], f"{FORCE}={forced}")
    why = "CuPy is not installed"
    if find_spec("cupy") is not None:
        try:
            LAUNCHERS["cupy"].prepare()
        except BackendError as error:
            why = f"CuPy cannot be used: {error}"
            warnings.warn(f"{why}; kernels start through cuda-bindings", stacklevel=3)
        else:
            return Choice(LAUNCHERS["cupy"], "CuPy is installed")
    LAUNCHERS["driver"].prepare()
    return Choice(LAUNCHERS["driver"], why)
