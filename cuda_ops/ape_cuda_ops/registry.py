"""Which implementation computes the operators: one per device, chosen once, said aloud.

The order on a CPU is C++ (compiled at first use), numba (when installed), embedding_bag
(always there); on a GPU the CUDA kernels by CuPy, by the driver alone, then embedding_bag with
a warning. ``APE_STREAM_KERNELS=<name>`` forces one; what cannot work here is an error
that lists what exists, never a quiet second choice.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

import torch

from ape_cuda_ops.errors import BackendError

if TYPE_CHECKING:
    from ape_cuda_ops.backends.base import Kernels

__all__ = ["BACKENDS", "Backend", "backend_in_use", "choose", "forced", "load"]

FORCE = "APE_STREAM_KERNELS"
"""The environment variable that names the backend to use."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to compute the operators."""

    name: str
    """What ``APE_STREAM_KERNELS`` calls it."""
    module: str
    """``module:object``, the object being :class:`~ape_cuda_ops.backends.base.Kernels`."""
    devices: frozenset[str]
    """Types of the devices whose tensors it takes."""
    rank: int
    """Lower is tried earlier."""


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("cupy", "ape_cuda_ops.backends.cuda:by_cupy", frozenset({"cuda"}), 1),
        Backend("driver", "ape_cuda_ops.backends.cuda:by_driver", frozenset({"cuda"}), 2),
        Backend("cpp", "ape_cuda_ops.backends.cpp:by_cpp", frozenset({"cpu"}), 1),
        Backend("numba", "ape_cuda_ops.backends.numba:by_numba", frozenset({"cpu"}), 2),
        Backend(
            "embedding_bag",
            "ape_cuda_ops.backends.embedding_bag:by_bag",
            frozenset({"cpu", "cuda"}),
            9,
        ),
    )
}


@cache
def load(name: str) -> Kernels:
    """The functions of one backend, compiled and ready.

    Raises:
        BackendError: There is no such backend, or it cannot work here (remembered).
    """
    failed = _failures.get(name)
    if failed is not None:
        raise failed
    if name not in BACKENDS:
        raise BackendError(f"no kernels are called {name!r}: choose one of {sorted(BACKENDS)}")
    path, _, attribute = BACKENDS[name].module.partition(":")
    kernels: Kernels = getattr(import_module(path), attribute)
    try:
        kernels.prepare()
    except BackendError as error:
        _failures[name] = error
        raise
    return kernels


_failures: dict[str, BackendError] = {}


def forced() -> str | None:
    """The name in ``APE_STREAM_KERNELS``, or None when it is unset or empty."""
    return os.environ.get(FORCE) or None


def choose(device: torch.device) -> Kernels:
    """The functions that compute on ``device``.

    Raises:
        BackendError: The forced backend does not exist, does not take this device or cannot
            work here.
    """
    return load(_name(device.type, forced()))


@cache
def _name(kind: str, wanted: str | None) -> str:
    """The backend for a type of device; a better one that fails is named in a warning."""
    fit = sorted(
        (backend for backend in BACKENDS.values() if kind in backend.devices),
        key=lambda backend: backend.rank,
    )
    if wanted is not None:
        if wanted not in {backend.name for backend in fit}:
            names = ", ".join(backend.name for backend in fit) or "none"
            raise BackendError(f"{FORCE}={wanted!r} does not fit {kind} tensors: there is {names}")
        load(wanted)
        return wanted
    for backend in fit:
        try:
            load(backend.name)
        except BackendError as error:
            warnings.warn(f"{backend.name} kernels cannot be used: {error}", stacklevel=3)
        else:
            return backend.name
    raise BackendError(f"no kernels for {kind} tensors")


def backend_in_use(device: str | torch.device = "cpu") -> str:
    """Name of the backend that computes on ``device``; chosen now if nothing ran yet.

    Raises:
        BackendError: The forced backend does not fit.
    """
    return _name(torch.device(device).type, forced())
