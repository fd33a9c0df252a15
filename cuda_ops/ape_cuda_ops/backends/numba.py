"""Deformable attention compiled by numba: for machines without a C++ compiler.

Forward only; gradients come from `embedding_bag`.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ape_cuda_ops.backends.embedding_bag import EmbeddingBagKernels, locations_and_weights
from ape_cuda_ops.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["NUMBA", "NumbaKernels"]


def _gather(  # noqa: C901 (one compiled loop nest)
    value: Any, sizes: Any, starts: Any, locations: Any, weights: Any, out: Any, queries: Any
) -> None:
    """Sum the samples of every (image, query, head), in loops that numba compiles.

    Args:
        value: (B, S, H, D) float32.
        sizes: (L, 2) int64 height and width.
        starts: (L,) int64 first token of a level.
        locations: (B * Q, H, L, P, 2) float32.
        weights: (B * Q, H, L, P) float32.
        out: (B * Q, H, D) float32, zeroed.
        queries: Q, the number of queries of an image.
    """
    rows, H, L, P = weights.shape
    for row in prange(rows):  # type: ignore[name-defined]  # noqa: F821 - bound in _compiled
        image = value[row // queries]  # (S, H, D)
        for h in range(H):
            total = out[row, h]
            for level in range(L):
                height, width = sizes[level, 0], sizes[level, 1]
                for p in range(P):
                    x = locations[row, h, level, p, 0] * width - np.float32(0.5)
                    y = locations[row, h, level, p, 1] * height - np.float32(0.5)
                    if not (x > -1 and x < width and y > -1 and y < height):
                        continue  # outside, or not a number
                    x0, y0 = int(np.floor(x)), int(np.floor(y))
                    fx, fy = x - np.float32(x0), y - np.float32(y0)
                    attention = weights[row, h, level, p]
                    for dy in range(2):
                        line = y0 + dy
                        if line < 0 or line >= height:
                            continue
                        # The nearer line weighs more: fy is the distance from the upper one.
                        wy = attention * (fy if dy else np.float32(1) - fy)
                        for dx in range(2):
                            column = x0 + dx
                            if column < 0 or column >= width:
                                continue
                            w = wy * (fx if dx else np.float32(1) - fx)
                            token = image[starts[level] + line * width + column, h]
                            for d in range(total.shape[0]):
                                total[d] += w * token[d]


@cache
def _compiled() -> tuple[Any, Any]:
    """The compiled loops and the numba module.

    Raises:
        BackendError: numba is not installed.
    """
    try:
        numba: Any = importlib.import_module("numba")
    except ImportError as error:
        raise BackendError(
            f"numba cannot be imported ({error}): pip install 'ape-stream[numba]'"
        ) from error
    # numba looks the name up when it compiles; without numba this file must import, too.
    _gather.__globals__["prange"] = numba.prange
    # Fused multiply-add is allowed; not "reassoc" or "nnan": NaN must still read zero.
    return numba.njit(parallel=True, fastmath={"contract", "nsz"})(_gather), numba


class NumbaKernels(EmbeddingBagKernels):
    """The operators, with the forward pass by numba."""

    def prepare(self) -> None:
        """Check that numba can be imported; it compiles at the first call.

        Raises:
            BackendError: numba is not installed.
        """
        _compiled()

    def forward(
        self,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        offsets_or_locations: Tensor,
        logits_or_weights: Tensor,
        reference: Tensor | None = None,
    ) -> Tensor:
        """See `Kernels.forward`."""
        locations, weights = locations_and_weights(
            shapes, offsets_or_locations, logits_or_weights, reference
        )
        B, _, H, D = value.shape
        Q = locations.shape[1]
        sizes = np.array(shapes, dtype=np.int64)
        areas = sizes.prod(1)
        out = torch.zeros((B * Q, H, D), dtype=torch.float32)
        loop, numba = _compiled()
        threads = torch.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        loop(
            value.float().numpy(),
            sizes,
            areas.cumsum() - areas,
            locations.flatten(0, 1).numpy(),  # (B * Q, H, L, P, 2)
            weights.flatten(0, 1).numpy(),  # (B * Q, H, L, P)
            out.numpy(),
            Q,
        )
        # numba and torch may share one OpenMP runtime, whose thread count numba changes.
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return out.view(B, Q, H * D).to(value.dtype)


NUMBA = NumbaKernels()
