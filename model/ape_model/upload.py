"""Pictures to the GPU without a wait: through pinned memory, on a stream of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ape_model.errors import VariantError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["UploadRing"]

SLOTS = 3
"""Pictures on their way at once: one being written, one being copied, one being computed."""


class UploadRing:
    """Three pinned buffers that take turns.

    Args:
        device: a GPU.

    Raises:
        VariantError: it is none.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise VariantError(f"pinned upload needs a GPU, got {device}: use Tensor.to")
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._buffers: list[Tensor | None] = [None] * SLOTS
        self._copied = [torch.cuda.Event() for _ in range(SLOTS)]
        self._turn = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Copy (B, 3, H, W) from the CPU: only what this stream does next waits for it.

        The host waits only where the copy of three calls ago is not done yet.
        """
        slot, self._turn = self._turn, (self._turn + 1) % SLOTS
        self._copied[slot].synchronize()
        buffer = self._buffers[slot]
        if buffer is None or buffer.shape != images.shape or buffer.dtype != images.dtype:
            buffer = torch.empty(images.shape, dtype=images.dtype, pin_memory=True)
            self._buffers[slot] = buffer
        buffer.copy_(images)
        with torch.cuda.stream(self._stream):
            there = buffer.to(self._device, non_blocking=True)
            self._copied[slot].record()
        user = torch.cuda.current_stream(self._device)
        user.wait_event(self._copied[slot])
        there.record_stream(user)  # its memory belongs to the copying stream
        return there
