"""The CUDA kernels: which template, how many blocks, which addresses."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch

from ape_cuda_ops.backends.base import Kernels
from ape_cuda_ops.build.launcher import Kernel, Launcher, chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = [
    "CUDA",
    "CudaKernels",
    "MaskArguments",
    "MsdaArguments",
    "NmsArguments",
    "forward_name",
]

NAMES = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "Bfloat16"}
"""dtypes as the sources call them."""
HEAD_DIMS = (16, 32, 64)  # that the template of msda.cu divides among threads
TILE = 8
"""Side of a tile of queries, as in msda.cu."""
MAX_GRID = 65535
"""CUDA's limit for the second and third axis of a grid."""


class MsdaArguments(ctypes.Structure):
    """`struct MsdaArguments` of msda.cu, where each field is explained."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in (
                "value",
                "reference",
                "offsets_or_locations",
                "logits_or_weights",
                "output",
                "output_grad",
                "value_grad",
                "coordinate_grad",
                "logit_or_weight_grad",
            )
        ),
        *((name, ctypes.c_int64) for name in ("B", "S", "Q")),
        *((name, ctypes.c_int32) for name in ("H", "grid_levels")),
        *((name, ctypes.c_int32 * 8) for name in ("width", "height", "first")),
        ("tiles", ctypes.c_int32 * 9),
    )


class NmsArguments(ctypes.Structure):
    """`struct NmsArguments` of post.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("boxes", "starts", "keep")),
        ("G", ctypes.c_int64),
        ("threshold", ctypes.c_float),
    )


class MaskArguments(ctypes.Structure):
    """`struct MaskArguments` of post.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("logits", "words")),
        ("N", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("h", "w", "H", "W", "words_per_line")),
        *((name, ctypes.c_float) for name in ("scale_y", "scale_x", "threshold")),
    )


def forward_name(
    value: torch.dtype, offsets: torch.dtype, head_dim: int, levels: int, points: int, axes: int
) -> str:
    """Name expression of the forward kernel for these types and counts.

    Raises:
        ValueError: there is no kernel for this head dimension.
    """
    if head_dim not in HEAD_DIMS:
        raise ValueError(f"CUDA kernels take head dimensions {HEAD_DIMS}, got {head_dim}")
    types = f"{NAMES[value]}, {NAMES[offsets]}"
    return f"msda_forward<{types}, {head_dim}, {levels}, {points}, {axes}>"


def _arguments(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    offsets_or_locations: Tensor,
    logits_or_weights: Tensor,
    reference: Tensor | None,
) -> tuple[MsdaArguments, int]:
    """What forward and backward share, and the number of query tiles."""
    arguments = MsdaArguments(
        value=value.data_ptr(),
        offsets_or_locations=offsets_or_locations.data_ptr(),
        logits_or_weights=logits_or_weights.data_ptr(),
    )
    arguments.B, arguments.S, arguments.H, _ = value.shape
    arguments.Q = offsets_or_locations.shape[1]
    if reference is not None:
        arguments.reference = reference.data_ptr()
    # Tiles are counted level after level: a block finds its level by these sums.
    first = tiles = 0
    for level, (height, width) in enumerate(shapes):
        arguments.height[level], arguments.width[level] = height, width
        arguments.first[level] = first
        first += height * width
        tiles += -(-height // TILE) * -(-width // TILE)  # rounded up on both axes
        arguments.tiles[level + 1] = tiles
    if arguments.Q == arguments.S:  # an encoder layer: the queries are the pixels
        arguments.grid_levels = len(shapes)
        return arguments, tiles
    # Queries of a decoder have no grid: a tile is as many in a row.
    return arguments, -(-arguments.Q // (TILE * TILE))


class CudaKernels(Kernels):
    """The operators as CUDA kernels, started by a launcher: the chosen one if none is given."""

    def __init__(self, launcher: Launcher | None = None) -> None:
        self._given = launcher

    @property
    def _launcher(self) -> Launcher:
        return self._given or chosen().launcher

    def prepare(self) -> None:
        """Check for a device, a compiler and a launcher.

        Raises:
            BackendError: one of them is missing.
        """
        self._launcher.prepare()

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
        output = value.new_empty(B, offsets_or_locations.shape[1], H * D)
        arguments, tiles = _arguments(
            value, shapes, offsets_or_locations, logits_or_weights, reference
        )
        arguments.output = output.data_ptr()
        self._start_msda("forward", arguments, tiles, value, offsets_or_locations, reference)
        return output

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
        exact = torch.float32
        output_grad = grad.to(exact)
        value_grad = torch.zeros_like(value, dtype=exact)
        coordinate_grad = torch.empty_like(offsets_or_locations, dtype=exact)
        attention_grad = torch.empty_like(logits_or_weights, dtype=exact)
        arguments, tiles = _arguments(
            value, shapes, offsets_or_locations, logits_or_weights, reference
        )
        arguments.output_grad = output_grad.data_ptr()
        arguments.value_grad = value_grad.data_ptr()
        arguments.coordinate_grad = coordinate_grad.data_ptr()
        arguments.logit_or_weight_grad = attention_grad.data_ptr()
        self._start_msda("backward", arguments, tiles, value, offsets_or_locations, reference)
        return value_grad, coordinate_grad, attention_grad

    def _start_msda(
        self,
        direction: str,
        arguments: MsdaArguments,
        tiles: int,
        value: Tensor,
        offsets_or_locations: Tensor,
        reference: Tensor | None,
    ) -> None:
        """One launch: a block per tile, head and image."""
        levels, points = offsets_or_locations.shape[3:5]
        # Template arguments, so that loops unroll: each combination is compiled once and kept.
        axes = 0 if reference is None else reference.shape[-1]
        name = forward_name(
            value.dtype, offsets_or_locations.dtype, value.shape[3], levels, points, axes
        ).replace("forward", direction)
        # Beyond the limit, each block goes on with the image MAX_GRID further.
        grid = (tiles, int(arguments.H), min(int(arguments.B), MAX_GRID))
        if min(grid):  # a grid must not be empty
            self._launcher.start(Kernel("msda.cu", name, grid, 128), arguments, value.device)

    def nms_grouped(self, boxes: Tensor, starts: Tensor, threshold: float) -> Tensor:
        """See `reference.nms_grouped`."""
        keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        G = len(starts) - 1
        arguments = NmsArguments(boxes.data_ptr(), starts.data_ptr(), keep.data_ptr(), G, threshold)
        if G and len(boxes):
            kernel = Kernel("post.cu", "nms_grouped", (min(G, MAX_GRID), 1, 1), 256)
            self._launcher.start(kernel, arguments, boxes.device)
        return keep

    def mask_pack(
        self,
        logits: Tensor,
        size: tuple[int, int],
        filled: tuple[float, float],
        threshold: float,
    ) -> Tensor:
        """See `reference.mask_pack`."""
        (N, h, w), (H, W) = logits.shape, size
        words = logits.new_empty((N, H, -(-W // 32)), dtype=torch.int32)
        arguments = MaskArguments(
            logits.data_ptr(), words.data_ptr(), N, h, w, H, W, words.shape[2]
        )
        arguments.scale_y, arguments.scale_x = filled[0] / H, filled[1] / W  # cells per pixel
        arguments.threshold = threshold
        if N:
            blocks = min(-(-words.numel() // 8), 1 << 16)  # 8 warps a block, a word per warp
            name = f"mask_pack<{NAMES[logits.dtype]}>"
            self._launcher.start(
                Kernel("post.cu", name, (blocks, 1, 1), 256), arguments, logits.device
            )
        return words


CUDA = CudaKernels()
