"""What a backend computes: deformable attention, its gradients, NMS, mask packing, resizing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ape_cuda_ops.backends import reference as reference_implementation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Kernels"]


class Kernels(ABC):
    """The operators of one backend.

    `reference` selects the input form: with a reference, the second and third input are offsets
    and logits; without one they are sampling locations and attention weights.
    """

    def prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Compile or load now.

        Raises:
            BackendError: the kernels cannot work here.
        """

    @abstractmethod
    def forward(
        self,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        offsets_or_locations: Tensor,
        logits_or_weights: Tensor,
        reference: Tensor | None = None,
    ) -> Tensor:
        """Multi-scale deformable attention.

        Args:
            value: (B, S, H, D).
            shapes: Height and width of each of the L levels.
            offsets_or_locations: (B, Q, H, L, P, 2).
            logits_or_weights: (B, Q, H, L * P) logits, or (B, Q, H, L, P) weights in the dtype
                of the locations.
            reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes, fractions of the image.

        Returns:
            (B, Q, H * D) in the dtype of `value`.
        """

    @abstractmethod
    def backward(
        self,
        grad: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        offsets_or_locations: Tensor,
        logits_or_weights: Tensor,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of `forward`, given the gradient of its output, (B, Q, H * D).

        Returns:
            Gradients of value, coordinates and logits or weights, in the shapes of the inputs,
            float32 (float64 where coordinates are). Coordinates are the locations; with a
            reference they are pixel coordinates, x = location * width - 1/2, from which the
            caller derives the gradients of offsets and reference.
        """

    def nms_grouped(self, boxes: Tensor, starts: Tensor, threshold: float) -> Tensor:
        """See `reference.nms_grouped`."""
        return reference_implementation.nms_grouped(boxes, starts, threshold)

    def mask_pack(
        self,
        logits: Tensor,
        size: tuple[int, int],
        filled: tuple[float, float],
        threshold: float,
    ) -> Tensor:
        """See `reference.mask_pack`."""
        return reference_implementation.mask_pack(logits, size, filled, threshold)

    def resize_axis(self, image: NDArray[np.uint8], axis: int, pixels: int) -> NDArray[np.uint8]:
        """Pillow's antialiased bilinear resize of bytes along one axis.

        Args:
            image: (H, W, 3), contiguous, in the memory of the host.
            axis: 0 or 1.
            pixels: Of that axis in the result.

        Returns:
            (pixels, W, 3) or (H, pixels, 3), contiguous.
        """
        height, width = image.shape[:2]
        size = (width, pixels) if axis == 0 else (pixels, height)
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
