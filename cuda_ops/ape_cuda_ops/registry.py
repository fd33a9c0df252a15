"""Chooses the backend that computes the operators: one per device, once, and reported.

On a CPU the order is C++ (compiled at first use), numba (if installed), embedding_bag (always
there); on a GPU the CUDA kernels, then embedding_bag with a warning. At the first use of a GPU its
kernels are compared with their references (`device_check`). `APE_STREAM_KERNELS=<name>` forces
one backend: if it cannot work here, that is an error that lists what exists.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING

import torch

from ape_cuda_ops import device_check
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
    """Its name in `APE_STREAM_KERNELS`."""
    module: str
    """`module:object`; the object is a `Kernels`."""
    devices: frozenset[str]
    """Types of the devices whose tensors it takes."""
    rank: int
    """The usable backend with the lowest rank is chosen."""
    checked: bool = False
    """Compared with the reference at the first use of a device."""


_CPU, _CUDA = frozenset({"cpu"}), frozenset({"cuda"})
_ROOM = "ape_cuda_ops.backends"
BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("cuda", f"{_ROOM}.cuda:CUDA", _CUDA, 1, checked=True),
        Backend("cpp", f"{_ROOM}.cpp:CPP", _CPU, 1),
        Backend("numba", f"{_ROOM}.numba:NUMBA", _CPU, 2),
        Backend("embedding_bag", f"{_ROOM}.embedding_bag:EMBEDDING_BAG", _CPU | _CUDA, 9),
    )
}


@cache
def load(name: str) -> Kernels:
    """The kernels of one backend, compiled or ready to compile.

    Raises:
        BackendError: there is no such backend, or it cannot work here (remembered).
    """
    # `cache` keeps results but not errors: a compiler that failed must not run again every call.
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
    """The name in `APE_STREAM_KERNELS`, or None when it is unset or empty."""
    return os.environ.get(FORCE) or None


def choose(device: torch.device) -> Kernels:
    """The kernels that compute on `device`.

    Raises:
        BackendError: the forced backend does not exist, does not take this device or cannot
            work here.
    """
    return load(_name(device, forced()))


@cache
def _name(device: torch.device, forced_name: str | None) -> str:
    """The backend of a device; a warning names each better one that cannot be used."""
    fit = sorted(
        (backend for backend in BACKENDS.values() if device.type in backend.devices),
        key=lambda backend: backend.rank,
    )
    names = [backend.name for backend in fit]
    if forced_name is not None:
        if forced_name not in names:
            exist = ", ".join(names) or "none"
            raise BackendError(
                f"{FORCE}={forced_name!r} does not fit {device.type} tensors: there is {exist}"
            )
        _make_ready(BACKENDS[forced_name], device)
        return forced_name
    # Cached, so each warning comes once per device.
    for backend in fit:
        try:
            _make_ready(backend, device)
        except BackendError as error:
            warnings.warn(f"{backend.name} kernels cannot be used: {error}", stacklevel=3)
        else:
            return backend.name
    raise BackendError(f"no kernels for {device.type} tensors")


def _make_ready(backend: Backend, device: torch.device) -> None:
    """Load a backend and, at the first use of a device, check it there.

    Raises:
        BackendError: it cannot work here.
    """
    kernels = load(backend.name)
    if backend.checked:
        run = partial(device_check.check_kernels, kernels, device)
        device_check.check_once("kernels", device, run, device_check.kernel_sources())


def backend_in_use(device: str | torch.device = "cpu") -> str:
    """Name of the backend that computes on `device`; chosen now if nothing ran yet.

    Raises:
        BackendError: the forced backend does not fit.
    """
    device = torch.device(device)
    # "cuda" and "cuda:0" must be one entry of the cache: tensors always name an index.
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return _name(device, forced())
