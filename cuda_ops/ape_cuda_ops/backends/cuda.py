"""The CUDA kernels behind the operators: which template, how many blocks, whose memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ape_cuda_ops.backends.base import Kernels
from ape_cuda_ops.build.launcher import (
    CupyLauncher,
    DriverLauncher,
    Kernel,
    Launcher,
    MaskArguments,
    MsdaArguments,
    NmsArguments,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["CudaKernels", "by_cupy", "by_driver", "forward_name"]

NAMES = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "Bfloat16"}
HEAD_DIMS = (16, 32, 64)
TILE = 8
MAX_BATCH_BLOCKS = 65535


def forward_name(
    value: torch.dtype, offsets: torch.dtype, head_dim: int, levels: int, points: int, axes: int
) -> str:
    """Name expression of the forward kernel for these types and counts.

    Raises:
        ValueError: There is no kernel for this head dimension.
    """
    if head_dim not in HEAD_DIMS:
        raise ValueError(f"CUDA kernels take head dimensions {HEAD_DIMS}, got {head_dim}")
    types = f"{NAMES[value]}, {NAMES[offsets]}"
    return f"msda_forward<{types}, {head_dim}, {levels}, {points}, {axes}>"


def _arguments(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    positions: Tensor,
    mixing: Tensor,
    reference: Tensor | None,
) -> tuple[MsdaArguments, int]:
    """What forward and backward share, and the number of query tiles."""
    arguments = MsdaArguments(
        value=value.data_ptr(), positions=positions.data_ptr(), mixing=mixing.data_ptr()
    )
    arguments.B, arguments.S, arguments.H, _ = value.shape
    arguments.Q = positions.shape[1]
    if reference is not None:
        arguments.reference = reference.data_ptr()
    first = tiles = 0
    for level, (height, width) in enumerate(shapes):
        arguments.height[level], arguments.width[level] = height, width
        arguments.first[level] = first
        first += height * width
        tiles += -(-height // TILE) * -(-width // TILE)
        arguments.tiles[level + 1] = tiles
    if arguments.Q == arguments.S:  # an encoder: the queries are the pixels
        arguments.grid_levels = len(shapes)
        return arguments, tiles
    return arguments, -(-arguments.Q // (TILE * TILE))


class CudaKernels(Kernels):
    """The operators, started by one launcher."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def prepare(self) -> None:
        """Raise BackendError when the launcher cannot work here."""
        self._launcher.prepare()

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
        output = value.new_empty(B, positions.shape[1], H * D)
        arguments, tiles = _arguments(value, shapes, positions, mixing, reference)
        arguments.output = output.data_ptr()
        self._start_msda("forward", arguments, tiles, value, positions, reference)
        return output

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
        exact = torch.float32
        gradient = grad.to(exact)
        value_grad = torch.zeros_like(value, dtype=exact)
        position_grad = torch.empty_like(positions, dtype=exact)
        mixing_grad = torch.empty_like(mixing, dtype=exact)
        arguments, tiles = _arguments(value, shapes, positions, mixing, reference)
        arguments.output_grad = gradient.data_ptr()
        arguments.value_grad = value_grad.data_ptr()
        arguments.position_grad = position_grad.data_ptr()
        arguments.mixing_grad = mixing_grad.data_ptr()
        self._start_msda("backward", arguments, tiles, value, positions, reference)
        return value_grad, position_grad, mixing_grad

    def _start_msda(
        self,
        direction: str,
        arguments: MsdaArguments,
        tiles: int,
        value: Tensor,
        positions: Tensor,
        reference: Tensor | None,
    ) -> None:
        """One launch: a block per tile, head and image."""
        levels, points = positions.shape[3:5]
        axes = 0 if reference is None else reference.shape[-1]
        name = forward_name(
            value.dtype, positions.dtype, value.shape[3], levels, points, axes
        ).replace("forward", direction)
        grid = (tiles, int(arguments.H), min(int(arguments.B), MAX_BATCH_BLOCKS))
        if min(grid):  # nothing to do for no query, head or image
            self._launcher.start(Kernel("msda.cu", name, grid, 128), arguments, value.device)

    def nms_grouped(self, boxes: Tensor, starts: Tensor, threshold: float) -> Tensor:
        """See :func:`ape_cuda_ops.backends.reference.nms_grouped`."""
        keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        G = len(starts) - 1
        arguments = NmsArguments(boxes.data_ptr(), starts.data_ptr(), keep.data_ptr(), G, threshold)
        if G and len(boxes):
            kernel = Kernel("post.cu", "nms_grouped", (min(G, MAX_BATCH_BLOCKS), 1, 1), 256)
            self._launcher.start(kernel, arguments, boxes.device)
        return keep

    def mask_pack(
        self,
        logits: Tensor,
        size: tuple[int, int],
        filled: tuple[float, float],
        threshold: float,
    ) -> Tensor:
        """See :func:`ape_cuda_ops.backends.reference.mask_pack`."""
        (N, h, w), (H, W) = logits.shape, size
        words = logits.new_empty((N, H, -(-W // 32)), dtype=torch.int32)
        arguments = MaskArguments(
            logits.data_ptr(), words.data_ptr(), N, h, w, H, W, words.shape[2]
        )
        arguments.scale_y, arguments.scale_x = filled[0] / H, filled[1] / W
        arguments.threshold = threshold
        if N:
            blocks = min(-(-words.numel() // 8), 1 << 16)
            name = f"mask_pack<{NAMES[logits.dtype]}>"
            self._launcher.start(
                Kernel("post.cu", name, (blocks, 1, 1), 256), arguments, logits.device
            )
        return words


by_cupy = CudaKernels(CupyLauncher())
by_driver = CudaKernels(DriverLauncher())
