"""The losses of one image, by the shortest way that its mode allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ape_model.config import NANO
from ape_model.training.finetuning.features import encoded, queries_of, restore
from ape_model.training.finetuning.mode import Mode
from ape_model.training.losses.criterion import Targets
from ape_model.training.losses.deta import assign, second_stage
from ape_model.training.losses.official import (
    CriterionConfig,
    OfficialCriterion,
    count_regions,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ape_model.network.ape import Ape
    from ape_model.training.data.batch import Batch
    from ape_model.training.finetuning.config import FineTuneConfig
    from ape_model.training.finetuning.features import FeatureStore
    from ape_model.training.finetuning.words import TuneWords

__all__ = ["TuneStep"]


class TuneStep:
    """Computes the losses of a batch of one image.

    prompt  alignment of kept queries with the words
    head    second half of the network on kept tokens
    lora    the network after the backbone
    full    all of it

    Args:
        network: With the weights that learn.
        words: The prompts.
        mode: Of the run.
        config: Number of negatives.
        store: Features of views; None: they are computed each time.
    """

    def __init__(
        self,
        network: Ape,
        words: TuneWords,
        mode: Mode,
        config: FineTuneConfig,
        store: FeatureStore | None,
    ) -> None:
        self.network, self.words, self.mode = network, words, mode
        self.negative_words, self.store = config.negative_words, store
        # Scores of nano say how well a box fits, those of the released models only yes or no.
        quality = network.config.name == NANO.ape.name
        self.criterion = OfficialCriterion(CriterionConfig(quality=quality))

    def __call__(self, batch: Batch, _: int) -> dict[str, Tensor]:
        """Weighted losses by name."""
        vectors, truth = self.words.draw(self.negative_words)
        # Each region takes the row of its class: (B, G, P + n).
        targets = Targets(truth.T[batch.classes])
        if self.mode is Mode.PROMPT:
            return self._align(batch, vectors, targets)
        prompts = self.network.vocabulary(vectors)
        if self.mode is Mode.HEAD:
            kept = self._kept(batch)
            features, memory = restore(self.network, batch, kept)
            outputs = self.network.decode(features, prompts, memory, None)
        else:
            with torch.set_grad_enabled(self.mode is Mode.FULL):
                features = self.network.encode_image(batch.images, batch.sizes)
            outputs = self.network.head(features, prompts)
        return self.criterion(self.network, features, outputs, batch, targets)

    def _kept(self, batch: Batch) -> dict[str, Tensor]:
        make = queries_of if self.mode is Mode.PROMPT else encoded
        if self.store is None or not batch.key:
            return make(self.network, batch)
        return self.store.get(batch.key, lambda: make(self.network, batch))

    def _align(self, batch: Batch, vectors: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The class terms alone: boxes and masks do not depend on the words."""
        kept = {name: tensor.to(vectors.device) for name, tensor in self._kept(batch).items()}
        boxes = self.criterion.target_boxes(self.network, batch)
        proposals = kept["proposals"]
        pairs = assign(proposals, boxes, batch.valid, second_stage(proposals.shape[1]))
        regions = count_regions(batch.valid)
        found = {}
        for layer, hidden in enumerate(kept["hidden"]):
            logits = self.network.class_embed[layer](hidden, vectors[None])
            terms = self.criterion.decoder_layer(
                logits, kept["boxes"][layer], pairs, boxes, targets.truth
            )
            found[f"class_{layer}"] = terms["class"] / regions
        return found
