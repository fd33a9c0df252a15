"""Attention, NMS and resizing in C++: compiled at first use, called through a C interface."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ape_cuda_ops.backends.base import Kernels
from ape_cuda_ops.backends.reference import resize_taps
from ape_cuda_ops.errors import CompileError
from ape_stream import errors
from ape_stream.native.cxx import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["CPP", "Arguments", "CppKernels"]

FOLDER = Path(__file__).parents[1] / "csrc"
_POINTERS = (
    "value",
    "reference",
    "offsets_or_locations",
    "logits_or_weights",
    "output_grad",
    "output",
    "value_grad",
    "coordinate_grad",
    "logit_or_weight_grad",
)
_COUNTS = ("H", "D", "L", "P", "axes", "bfloat16", "threads")


class Arguments(ctypes.Structure):
    """`struct Arguments` of samples.h, where each field is explained."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in ("B", "S", "Q")),
        *((name, ctypes.c_int32) for name in _COUNTS),
        ("heights", ctypes.c_int32 * 8),  # MAX_LEVELS
        ("widths", ctypes.c_int32 * 8),
    )


@cache
def _attention() -> ctypes.CDLL:
    """Compiled deformable attention.

    Raises:
        CompileError: it cannot be compiled or loaded here.
    """
    library = _load("msda.cpp")
    for function in (library.msda_forward, library.msda_backward):
        function.argtypes = [ctypes.POINTER(Arguments)]
        function.restype = None
    return library


@cache
def _suppression() -> ctypes.CDLL:
    """Compiled non-maximum suppression.

    Raises:
        CompileError: it cannot be compiled or loaded here.
    """
    # Products rounded by themselves, as the reference has them: an IoU may lie at the threshold.
    library = _load("nms.cpp", "-ffp-contract=off")
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    library.nms_grouped.argtypes = [pointer, pointer, count, ctypes.c_float, pointer]
    library.nms_grouped.restype = None
    return library


@cache
def _resizing() -> ctypes.CDLL:
    """Compiled resizing of bytes.

    Raises:
        CompileError: it cannot be compiled or loaded here.
    """
    library = _load("resize.cpp")
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    for function in (library.resize_rows, library.resize_columns):
        function.argtypes = [pointer, count, count, pointer, pointer, count, count, pointer]
        function.restype = None
    return library


def _load(name: str, *flags: str) -> ctypes.CDLL:
    """The library of one source file.

    Raises:
        CompileError: it cannot be compiled or loaded here.
    """
    try:
        return load(FOLDER / name, *flags)
    except errors.CompileError as error:
        raise CompileError(str(error)) from error


def _readable(value: Tensor) -> Tensor:
    """Values in a dtype that the kernels read: float32 or bfloat16."""
    return value if value.dtype in {torch.float32, torch.bfloat16} else value.float()


def _arguments(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    offsets_or_locations: Tensor,
    logits_or_weights: Tensor,
    reference: Tensor | None = None,
) -> Arguments:
    """What forward and backward share; holds addresses, so the tensors must outlive the call."""
    arguments = Arguments(
        value=value.data_ptr(),
        offsets_or_locations=offsets_or_locations.data_ptr(),
        logits_or_weights=logits_or_weights.data_ptr(),
        L=len(shapes),
        P=offsets_or_locations.shape[4],
        bfloat16=value.dtype == torch.bfloat16,
        threads=torch.get_num_threads(),
    )
    arguments.B, arguments.S, arguments.H, arguments.D = value.shape
    arguments.Q = offsets_or_locations.shape[1]
    if reference is not None:
        arguments.reference, arguments.axes = reference.data_ptr(), reference.shape[-1]
    for level, (height, width) in enumerate(shapes):
        arguments.heights[level], arguments.widths[level] = height, width
    return arguments


class CppKernels(Kernels):
    """The operators by compiled libraries; masks are packed by the reference form."""

    def prepare(self) -> None:
        """Compile or load now.

        Raises:
            CompileError: the kernels cannot be compiled or loaded here.
        """
        _attention()
        _suppression()
        _resizing()

    def forward(
        self,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        offsets_or_locations: Tensor,
        logits_or_weights: Tensor,
        reference: Tensor | None = None,
    ) -> Tensor:
        """See `Kernels.forward`."""
        B, _, H, D = value.shape
        # Named, so that converted copies live until the call returns.
        rows = _readable(value)
        coordinates, attention = offsets_or_locations.float(), logits_or_weights.float()
        output = value.new_empty((B, coordinates.shape[1], H * D), dtype=torch.float32)
        arguments = _arguments(rows, shapes, coordinates, attention, reference)
        arguments.output = output.data_ptr()
        _attention().msda_forward(ctypes.byref(arguments))
        return output.to(value.dtype)

    def backward(
        self,
        grad: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        offsets_or_locations: Tensor,
        logits_or_weights: Tensor,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernels.backward`."""
        rows, output_grad = _readable(value), grad.float()
        coordinates, attention = offsets_or_locations.float(), logits_or_weights.float()
        # Values are added to by many samples, each coordinate and weight is written once.
        value_grad = torch.zeros_like(value, dtype=torch.float32)
        coordinate_grad, attention_grad = torch.empty_like(coordinates), torch.empty_like(attention)
        arguments = _arguments(rows, shapes, coordinates, attention, reference)
        arguments.output_grad = output_grad.data_ptr()
        arguments.value_grad = value_grad.data_ptr()
        arguments.coordinate_grad = coordinate_grad.data_ptr()
        arguments.logit_or_weight_grad = attention_grad.data_ptr()
        _attention().msda_backward(ctypes.byref(arguments))
        return value_grad, coordinate_grad, attention_grad

    def nms_grouped(self, boxes: Tensor, starts: Tensor, threshold: float) -> Tensor:
        """See `reference.nms_grouped`."""
        boxes, starts = boxes.contiguous(), starts.contiguous()
        keep = torch.zeros(len(boxes), dtype=torch.bool)
        _suppression().nms_grouped(
            boxes.data_ptr(), starts.data_ptr(), len(starts) - 1, threshold, keep.data_ptr()
        )
        return keep

    def resize_axis(self, image: NDArray[np.uint8], axis: int, pixels: int) -> NDArray[np.uint8]:
        """See `Kernels.resize_axis`."""
        height, width, channels = image.shape
        first, weights = resize_taps(image.shape[axis], pixels)
        taps = first.ctypes.data, weights.ctypes.data, weights.shape[1], pixels
        if axis == 0:
            resized = np.empty((pixels, width, channels), np.uint8)
            _resizing().resize_rows(
                image.ctypes.data, height, width * channels, *taps, resized.ctypes.data
            )
        else:
            resized = np.empty((height, pixels, channels), np.uint8)
            _resizing().resize_columns(image.ctypes.data, height, width, *taps, resized.ctypes.data)
        return resized


CPP = CppKernels()
