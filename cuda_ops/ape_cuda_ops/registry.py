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
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

from ape_cuda_ops.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["BACKENDS", "Backend", "Kernels", "backend_in_use", "choose", "forced", "load"]

FORCE = "APE_STREAM_KERNELS"
"""The environment variable that names the backend to use."""


class Kernels(Protocol):
    """What a backend's module offers; see :mod:`ape_cuda_ops.reference` for the meaning."""

    def msda(
        self,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        locations: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """(B, Q, H * D)."""

    def msda_backward(
        self,
        grad: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        locations: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of value, locations and weights, float32."""

    def msda_fused(
        self,
        value: Tensor,
        reference: Tensor,
        offsets: Tensor,
        logits: Tensor,
        shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """(B, Q, H * D)."""

    def msda_fused_backward(
        self,
        grad: Tensor,
        value: Tensor,
        reference: Tensor,
        offsets: Tensor,
        logits: Tensor,
        shapes: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of value, pixel coordinates and logits, float32."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to compute the operators."""

    name: str
    """What ``APE_STREAM_KERNELS`` calls it."""
    module: str
    """``module`` or ``module:object`` with the functions of :class:`Kernels` and ``prepare``."""
    devices: frozenset[str]
    """Types of the devices whose tensors it takes."""
    rank: int
    """Lower is tried earlier."""


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("cupy", "ape_cuda_ops.cuda:by_cupy", frozenset({"cuda"}), 1),
        Backend("driver", "ape_cuda_ops.cuda:by_driver", frozenset({"cuda"}), 2),
        Backend("cpp", "ape_cuda_ops.cpp", frozenset({"cpu"}), 1),
        Backend("numba", "ape_cuda_ops.numba_path", frozenset({"cpu"}), 2),
        Backend("embedding_bag", "ape_cuda_ops.embedding_bag", frozenset({"cpu", "cuda"}), 9),
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
    kernels: Any = import_module(path)
    if attribute:
        kernels = getattr(kernels, attribute)
    try:
        kernels.prepare()
    except BackendError as error:
        _failures[name] = error
        raise
    return cast("Kernels", kernels)


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
