"""The lines of `ape-stream doctor` about kernels."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from ape_cuda_ops import device_check
from ape_cuda_ops.build import nvrtc
from ape_cuda_ops.build.launcher import chosen
from ape_cuda_ops.errors import BackendError
from ape_cuda_ops.registry import backend_in_use
from ape_stream.errors import CompileError
from ape_stream.native import cxx
from ape_stream.native.cache import directory

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["checks", "findings"]


def _in_use(device: str) -> str:
    """The backend in use on a device, and why no better one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            name = backend_in_use(device)
        except BackendError as error:
            return f"none: {error}"
    return "; ".join([name, *(str(warning.message) for warning in caught)])


def _launcher() -> str:
    """The launcher in use, and why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reason is shown
        choice = chosen()
    return f"{choice.launcher.name} ({choice.why})"


def _result(call: Callable[[], str]) -> str:
    """What a call returns, or why it cannot."""
    try:
        return call()
    except (BackendError, CompileError) as error:
        return f"none: {error}"


def findings() -> list[tuple[str, str]]:
    """Pairs of (what, finding) about backends, compilers and the cache."""
    found = [("kernels on cpu", _in_use("cpu"))]
    if torch.cuda.is_available():
        found.append(("kernels on cuda", _in_use("cuda")))
        found += checks(torch.device("cuda"))
    else:
        found.append(("kernels on cuda", "torch sees no CUDA device"))
    found.append(("kernel launcher", _result(_launcher)))
    found.append(("c++ compiler", _result(cxx.compiler)))
    found.append(("c++ flags", " ".join(cxx.architecture_flags()) or "none needed"))
    found.append(("nvrtc", _result(lambda: ".".join(map(str, nvrtc.version())))))
    found.append(("kernel cache", str(directory())))
    return found


def checks(device: torch.device) -> list[tuple[str, str]]:
    """Results of the device checks that ran on this device, see `device_check`."""
    return [
        (
            f"{record.check} check",
            f"{record.state} on {record.device}, driver {record.driver}, "
            f"launcher {record.launcher}" + (f": {record.detail}" if record.detail else ""),
        )
        for record in device_check.records(device)
    ]
