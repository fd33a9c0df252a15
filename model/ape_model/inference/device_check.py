"""Replays a CUDA graph and uploads frames once on a GPU never used before, and compares.

What differs or fails is not used on that GPU: a warning names it, and `ape-stream doctor` shows
it. Results are kept with those of the kernels, see `ape_cuda_ops.device_check`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ape_cuda_ops.device_check import check_once, compare
from ape_cuda_ops.errors import BackendError
from ape_cuda_ops.ops import msda_fused
from ape_model.inference.cuda_graphs import CapturedCall
from ape_model.inference.transfer import SLOTS, PinnedUploader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    Upload = Callable[[NDArray[np.uint8]], Tensor]

__all__ = ["graphs_work", "uploader"]

SHAPES = ((6, 5), (3, 2))
SOURCES = sorted(Path(__file__).parent.glob("*.py"))


def graphs_work(
    device: torch.device, capture: Callable[..., Callable[..., Tensor]] = CapturedCall
) -> bool:
    """Whether a captured call gives what the call itself gives; warns where it does not."""

    def run() -> None:
        # Captured with the first, replayed with the second, then again: stale inputs would show.
        first, second = _layer_inputs(device, 0), _layer_inputs(device, 1)
        replayed = capture(_layer, first)
        for inputs in (second, first):
            compare("a replayed CUDA graph", replayed(*inputs), _layer(*inputs), 1e-5)

    return _works("CUDA graph", device, run, "kernels start one by one")


def uploader(
    device: torch.device, make: Callable[[torch.device], Upload] = PinnedUploader
) -> Upload:
    """What brings frames to a GPU: `make(device)` if they arrive unchanged, else a plain copy."""

    def run() -> None:
        random, upload = np.random.default_rng(0), make(device)
        frames = [  # more than there are buffers
            random.integers(0, 256, (40 + 8 * turn, 64, 3), np.uint8) for turn in range(2 * SLOTS)
        ]
        arrived = [upload(frame) for frame in frames]
        for there, frame in zip(arrived, frames, strict=True):
            compare("an uploaded frame", there, torch.from_numpy(frame))

    if _works("upload", device, run, "frames are copied without pinned memory"):
        return make(device)
    return lambda frame: torch.from_numpy(frame).to(device)


def _works(check: str, device: torch.device, run: Callable[[], None], instead: str) -> bool:
    try:
        check_once(check, device, run, SOURCES)
    except (BackendError, torch.OutOfMemoryError) as error:
        warnings.warn(f"{instead}: {error}", stacklevel=3)
        return False
    return True


def _layer(value: Tensor, points: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    """A deformable layer and a product: one kernel of ours between kernels of torch."""
    sampled = msda_fused(value, points, offsets, logits, SHAPES)
    return sampled @ sampled.mT


def _layer_inputs(device: torch.device, seed: int) -> Sequence[Tensor]:
    random = torch.Generator().manual_seed(seed)
    tokens, levels = sum(height * width for height, width in SHAPES), len(SHAPES)
    inputs = (
        torch.randn((1, tokens, 2, 16), generator=random),
        torch.rand((1, tokens, levels, 2), generator=random),
        torch.randn((1, tokens, 2, levels, 2, 2), generator=random),
        torch.randn((1, tokens, 2, levels * 2), generator=random),
    )
    return tuple(tensor.to(device) for tensor in inputs)
