"""The C++ kernels: compiled at first use, called through a plain C interface."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ape_cuda_ops.backends.base import Kernels
from ape_cuda_ops.build.cxx import shared_library
from ape_cuda_ops.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["CppKernels", "Task", "by_cpp"]

SOURCE = Path(__file__).parents[1] / "csrc/msda.cpp"
_POINTERS = (
    "value",
    "reference",
    "positions",
    "mixing",
    "output_grad",
    "output",
    "value_grad",
    "position_grad",
    "mixing_grad",
)
_COUNTS = ("H", "D", "L", "P", "axes", "bfloat16", "threads")


class Task(ctypes.Structure):
    """The C++ side's ``struct Task``, which says what each field is."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in ("B", "S", "Q")),
        *((name, ctypes.c_int32) for name in _COUNTS),
        ("heights", ctypes.c_int32 * 8),
        ("widths", ctypes.c_int32 * 8),
    )


@cache
def _library() -> ctypes.CDLL:
    """The compiled kernels.

    Raises:
        CompileError: They cannot be compiled or loaded here.
    """
    path = shared_library(SOURCE)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise CompileError(f"cannot load {path}: {error}") from error
    for function in (library.msda_forward, library.msda_backward):
        function.argtypes = [ctypes.POINTER(Task)]
        function.restype = None
    return library


def _values(value: Tensor) -> Tensor:
    """Values as the kernels read them: bfloat16 and float32 as they are, float16 widened."""
    return value if value.dtype in {torch.float32, torch.bfloat16} else value.float()


def _task(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    positions: Tensor,
    mixing: Tensor,
    reference: Tensor | None = None,
) -> Task:
    """The arguments common to forward and backward; the tensors must outlive the call."""
    task = Task(
        value=value.data_ptr(),
        positions=positions.data_ptr(),
        mixing=mixing.data_ptr(),
        L=len(shapes),
        P=positions.shape[4],
        bfloat16=value.dtype == torch.bfloat16,
        threads=torch.get_num_threads(),
    )
    task.B, task.S, task.H, task.D = value.shape
    task.Q = positions.shape[1]
    if reference is not None:
        task.reference, task.axes = reference.data_ptr(), reference.shape[-1]
    for level, (height, width) in enumerate(shapes):
        task.heights[level], task.widths[level] = height, width
    return task


class CppKernels(Kernels):
    """The operators in the compiled library."""

    def prepare(self) -> None:
        """Compile or load now.

        Raises:
            CompileError: The kernels cannot be compiled or loaded here.
        """
        _library()

    def forward(
        self,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        positions: Tensor,
        mixing: Tensor,
        reference: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`ape_cuda_ops.backends.base.Kernels.forward`."""
        B, _, H, D = value.shape
        rows, steps, shares = _values(value), positions.float(), mixing.float()
        output = value.new_empty((B, positions.shape[1], H * D), dtype=torch.float32)
        task = _task(rows, shapes, steps, shares, reference)
        task.output = output.data_ptr()
        _library().msda_forward(ctypes.byref(task))
        return output.to(value.dtype)

    def backward(
        self,
        grad: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        positions: Tensor,
        mixing: Tensor,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`ape_cuda_ops.backends.base.Kernels.backward`."""
        rows, steps, shares, out = _values(value), positions.float(), mixing.float(), grad.float()
        value_grad = torch.zeros_like(value, dtype=torch.float32)
        position_grad, mixing_grad = torch.empty_like(steps), torch.empty_like(shares)
        task = _task(rows, shapes, steps, shares, reference)
        task.output_grad = out.data_ptr()
        task.value_grad = value_grad.data_ptr()
        task.position_grad, task.mixing_grad = position_grad.data_ptr(), mixing_grad.data_ptr()
        _library().msda_backward(ctypes.byref(task))
        return value_grad, position_grad, mixing_grad


by_cpp = CppKernels()
