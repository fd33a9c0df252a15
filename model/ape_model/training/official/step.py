"""The losses of a batch: its prompts, the network, and the criterion of its data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ape_model.training.losses.official import OfficialCriterion

if TYPE_CHECKING:
    from torch import Tensor

    from ape_model.network.ape import Ape
    from ape_model.training.data.batch import Batch
    from ape_model.training.official.prompts import OfficialPrompts
    from ape_model.training.official.recipe import OfficialRecipe

__all__ = ["OfficialStep"]


class OfficialStep:
    """Computes weighted losses by name.

    Args:
        network: That learns.
        prompts: Of every batch.
        recipe: The loss terms of each data set.
    """

    def __init__(self, network: Ape, prompts: OfficialPrompts, recipe: OfficialRecipe) -> None:
        self.network, self.prompts = network, prompts
        self.rows = recipe.data
        self.criteria = [OfficialCriterion(row.criterion) for row in recipe.data]

    def __call__(self, batch: Batch, _: int) -> dict[str, Tensor]:
        """Weighted losses by the name of the data set and the term, as `sa1b/mask`."""
        prompts, targets = self.prompts(self.network, batch)
        features = self.network.encode_image(batch.images, batch.sizes)
        outputs = self.network.head(features, prompts)
        criterion = self.criteria[batch.dataset]
        losses = criterion(self.network, features, outputs, batch, targets)
        return {f"{self.rows[batch.dataset].name}/{key}": value for key, value in losses.items()}
