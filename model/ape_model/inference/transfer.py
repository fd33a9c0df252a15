"""Between host and GPU with as few waits as can be: through pinned memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ape_model.errors import VariantError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["PinnedUploader", "to_device", "to_host"]

SLOTS = 3
"""Images in transfer at once: one being written, one being copied, one being computed."""


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the host on the device; the host does not wait."""
    if device.type != "cuda":
        return tensor.to(device)
    # Only from pinned memory is the copy asynchronous; torch keeps it until the copy is done.
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """All of them on the CPU, after one wait for the GPU; CPU tensors are returned as they are."""
    copies = []
    for tensor in tensors:
        pinned = tensor.device.type == "cuda"
        copy = torch.empty_like(tensor, device="cpu", pin_memory=True) if pinned else tensor
        copies.append(copy.copy_(tensor, non_blocking=True) if pinned else copy)
    # All copies are queued on one stream: waiting for it once waits for all of them.
    device = next((tensor.device for tensor in tensors if tensor.device.type == "cuda"), None)
    if device is not None:
        torch.cuda.current_stream(device).synchronize()
    return copies


class PinnedUploader:
    """Three pinned buffers that take turns.

    Args:
        device: A GPU.

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

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """Copy bytes of any shape from the CPU: only what this stream does next waits for them.

        The host waits only where the copy of three calls ago is not done yet.
        """
        slot, self._turn = self._turn, (self._turn + 1) % SLOTS
        self._copied[slot].synchronize()  # the buffer is free once its last copy has left it
        buffer = self._buffers[slot]
        if buffer is None or len(buffer) < image.size:
            buffer = torch.empty(image.size, dtype=torch.uint8, pin_memory=True)
            self._buffers[slot] = buffer
        pinned = buffer[: image.size].view(image.shape)
        np.copyto(pinned.numpy(), image)
        with torch.cuda.stream(self._stream):
            there = pinned.to(self._device, non_blocking=True)
            self._copied[slot].record()
        user = torch.cuda.current_stream(self._device)
        user.wait_event(self._copied[slot])
        there.record_stream(user)  # its memory belongs to the copying stream
        return there
