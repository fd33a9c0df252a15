"""Kernels for GPU and CPU: deformable attention, NMS, masks packed to bits, resizing of images.

Importing this package compiles nothing: the first call of an operator does, once per machine.

    ops.py           the operators torch knows: msda, msda_fused, nms_grouped, mask_pack
    resize.py        images as Pillow resizes them, to the byte
    checks.py        checks of their arguments; errors: what they raise
    registry.py      chooses the backend of a device
    device_check.py  compares kernels with their references at the first use of a GPU
    backends/        one implementation per file: CUDA, C++, numba, torch
    build/           the compiler of CUDA (NVRTC) and the launchers
    csrc/            the kernels' sources, C++ and CUDA
    bench.py, doctor.py    `ape-stream bench ops` and `resize`; the kernel lines of `doctor`
"""

from ape_cuda_ops.errors import BackendError, CompileError, DeviceCheckError
from ape_cuda_ops.ops import mask_pack, msda, msda_fused, nms_grouped
from ape_cuda_ops.registry import backend_in_use

__all__ = [
    "BackendError",
    "CompileError",
    "DeviceCheckError",
    "backend_in_use",
    "mask_pack",
    "msda",
    "msda_fused",
    "nms_grouped",
]
