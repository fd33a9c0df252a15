"""What a backend is: one forward and one backward, behind the four functions that call them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["Kernels"]


class Kernels(ABC):
    """The operators of one backend; see :mod:`ape_cuda_ops.backends.reference` for the meaning.

    With a reference, positions and mixing are offsets and logits; without one they are
    locations and weights. That is the only difference between the fused and the plain
    operator, so a backend says it once, in :meth:`forward` and :meth:`backward`.
    """

    def prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Compile or load now.

        Raises:
            BackendError: The kernels cannot work here.
        """

    @abstractmethod
    def forward(
        self,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        positions: Tensor,
        mixing: Tensor,
        reference: Tensor | None = None,
    ) -> Tensor:
        """Both forward operators.

        Args:
            value: (B, S, H, D).
            shapes: height and width of each of the L levels.
            positions: (B, Q, H, L, P, 2), locations, or offsets when there is a reference.
            mixing: (B, Q, H, L, P) weights in the dtype of ``positions``, or (B, Q, H, L * P)
                logits.
            reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes.

        Returns:
            (B, Q, H * D) in the dtype of ``value``.
        """

    @abstractmethod
    def backward(
        self,
        grad: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        positions: Tensor,
        mixing: Tensor,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of :meth:`forward`, given that of its output, (B, Q, H * D).

        Returns:
            Those of value, positions and mixing, in their shapes, float32 (float64 where
            coordinates are). With a reference the second is by the pixel coordinate itself
            (x = location * width - 1/2), from which those of offsets and reference follow by
            the chain rule.
        """

    def msda(
        self,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        locations: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """See :func:`ape_cuda_ops.backends.reference.msda`."""
        return self.forward(value, shapes, locations, weights.to(locations.dtype))

    def msda_backward(
        self,
        grad: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        locations: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of value, locations and weights, in the dtype of ``locations``."""
        return self.backward(grad, value, shapes, locations, weights.to(locations.dtype))

    def msda_fused(
        self,
        value: Tensor,
        reference: Tensor,
        offsets: Tensor,
        logits: Tensor,
        shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """See :func:`ape_cuda_ops.backends.reference.msda_fused`."""
        return self.forward(value, shapes, offsets, logits, reference)

    def msda_fused_backward(
        self,
        grad: Tensor,
        value: Tensor,
        reference: Tensor,
        offsets: Tensor,
        logits: Tensor,
        shapes: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of value, pixel coordinates and logits, in the dtype of ``reference``."""
        return self.backward(grad, value, shapes, offsets, logits, reference)
