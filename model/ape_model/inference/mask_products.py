"""Masks of one batch for its regions and for an index: the product of all queries, made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ape_model.network.ape import FEW_QUERIES

if TYPE_CHECKING:
    from torch import Tensor

    from ape_model.inference.cuda_graphs import CudaGraphRunner
    from ape_model.network.align import ExactAlignment
    from ape_model.network.ape import Ape, PromptFeatures, RawOutputs

__all__ = ["MaskProducts"]


class MaskProducts:
    """Stands for the network in `find_regions`, and keeps the masks that it made.

    Args:
        runner: The network, or its graphs.
    """

    def __init__(self, runner: Ape | CudaGraphRunner) -> None:
        self.runner = runner
        """The network, or its graphs."""
        self._made: dict[tuple[RawOutputs, int], Tensor] = {}

    def exact_alignment(
        self, outputs: RawOutputs, prompts: PromptFeatures
    ) -> ExactAlignment | None:
        """As `Ape.exact_alignment`."""
        return self.runner.exact_alignment(outputs, prompts)

    def region_masks(self, outputs: RawOutputs, image: int, queries: Tensor) -> Tensor:
        """As `Ape.region_masks`; of few queries one product holds the masks of all."""
        if outputs.hidden.shape[1] > FEW_QUERIES or not len(queries):
            return self.runner.region_masks(outputs, image, queries)
        every = self.runner.region_masks(outputs, image)
        self._made[outputs, image] = every
        return every[queries]

    def made(self, outputs: RawOutputs, image: int) -> Tensor | None:
        """The masks of all queries of an image (Q, H, W), if its regions needed them."""
        return self._made.get((outputs, image))
