"""Deformable-attention and mask kernels for GPU and CPU.

Importing this package compiles nothing: the first call of an operator does, once per machine.
"""

from ape_cuda_ops.errors import BackendError, CompileError
from ape_cuda_ops.ops import mask_pack, msda, msda_fused, nms_grouped
from ape_cuda_ops.registry import backend_in_use

__all__ = [
    "BackendError",
    "CompileError",
    "backend_in_use",
    "mask_pack",
    "msda",
    "msda_fused",
    "nms_grouped",
]
