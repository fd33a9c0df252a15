"""What ``ape-stream doctor`` says of the kernels."""

from __future__ import annotations

import warnings

import torch

from ape_cuda_ops.build import cxx, nvrtc
from ape_cuda_ops.build.cache import directory
from ape_cuda_ops.errors import BackendError
from ape_cuda_ops.registry import backend_in_use

__all__ = ["findings"]


def _in_use(device: str) -> str:
    """The backend in use on a device, and why no better one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            name = backend_in_use(device)
        except BackendError as error:
            return f"none: {error}"
    return "; ".join([name, *(str(warning.message) for warning in caught)])


def _of(ask: object) -> str:
    """What a callable answers, or why it cannot."""
    try:
        return str(ask()) if callable(ask) else str(ask)
    except BackendError as error:
        return f"none: {error}"


def findings() -> list[tuple[str, str]]:
    """Pairs of (what, finding) about backends, compilers and the cache."""
    found = [("kernels on cpu", _in_use("cpu"))]
    if torch.cuda.is_available():
        found.append(("kernels on cuda", _in_use("cuda")))
    else:
        found.append(("kernels on cuda", "torch sees no CUDA device"))
    found.append(("c++ compiler", _of(cxx.compiler)))
    found.append(("c++ flags", " ".join(cxx.architecture_flags()) or "none needed"))
    found.append(("nvrtc", _of(lambda: ".".join(map(str, nvrtc.version())))))
    found.append(("kernel cache", str(directory())))
    return found
