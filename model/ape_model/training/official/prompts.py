"""The prompts of a batch: all names of its data set, or the phrases of its regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

from ape_model.training.losses.criterion import Targets
from ape_model.training.prompts.embedding_queue import EmbeddingQueue
from ape_model.training.prompts.federated import draw_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_model.network.ape import Ape, PromptFeatures
    from ape_model.training.data.batch import Batch
    from ape_model.training.official.records import RowData

__all__ = ["OfficialPrompts", "class_counts"]

_PAD_RANK = 0.7
"""Stuff without a count is as frequent as the class at this rank of all classes (`kth`)."""


class OfficialPrompts:
    """Chooses and embeds prompts; keeps the phrases of earlier batches as negatives.

    Args:
        rows: The data sets of the run.
        encode: Texts to (N, D) vectors.
        width: D, channels of a prompt.
    """

    def __init__(
        self, rows: Sequence[RowData], encode: Callable[[Sequence[str]], Tensor], width: int
    ) -> None:
        self.rows, self.encode = tuple(rows), encode
        phrases = [row.row.classes if row.row.prompts == "phrase" else 0 for row in self.rows]
        self.queue = EmbeddingQueue(tuple(phrases), width)
        self._counts = [class_counts(row) for row in self.rows]
        self._names: dict[int, Tensor] = {}

    def __call__(self, network: Ape, batch: Batch) -> tuple[PromptFeatures, Targets]:
        """The prompts of a batch, and which region each is true of."""
        if self.rows[batch.dataset].row.prompts == "phrase":
            return self._phrases(network, batch)
        return self._classes(network, batch)

    def _classes(self, network: Ape, batch: Batch) -> tuple[PromptFeatures, Targets]:
        names = self._vectors(batch.dataset).to(batch.images)  # (C, D)
        asked = self._asked(batch).to(names.device)  # (P,)
        truth = (batch.classes[..., None] == asked).float()  # (B, G, P)
        return network.vocabulary(names[asked]), Targets(truth)

    def _vectors(self, dataset: int) -> Tensor:
        if dataset not in self._names:
            self._names[dataset] = self.encode(self.rows[dataset].names).detach()
        return self._names[dataset]

    def _asked(self, batch: Batch) -> Tensor:
        """(P,) classes of a batch, ascending."""
        data, counts = self.rows[batch.dataset], self._counts[batch.dataset]
        if not data.row.federated:
            return torch.arange(len(data.names))
        present = batch.classes[batch.valid].cpu()
        # With torch's own generator, which the step has seeded.
        drawn = draw_classes(present, counts, data.row.federated, torch.default_generator)
        if data.row.federated_pad == "cat":
            drawn = torch.cat([drawn, torch.arange(data.things, len(data.names))]).unique()
        return drawn

    def _phrases(self, network: Ape, batch: Batch) -> tuple[PromptFeatures, Targets]:
        found = [(b, text, g) for b, own in enumerate(batch.sentences) for text, g in own]
        vectors = self.encode([text for _, text, _ in found]).detach()  # (L, D)
        seen = self._remember(vectors, batch.dataset).to(batch.images)  # (L + earlier ones, D)
        # Each region has a prompt of its own; a batch's phrases are asked for in all its images.
        truth = torch.zeros(*batch.classes.shape, len(seen), device=seen.device)  # (B, G, P)
        for column, (image, _, region) in enumerate(found):
            truth[image, region, column] = 1
        return network.sentences(seen), Targets(truth)

    def _remember(self, vectors: Tensor, dataset: int) -> Tensor:
        """What the network sees of (L, D) phrases: these, then earlier ones.

        The phrases of all processes are queued, so that all queues are the same: the state of one
        process is that of all.
        """
        vectors = vectors.cpu()
        if not distributed.is_initialized():
            return self.queue.extend(vectors, dataset)
        parts: list[Tensor] = [vectors] * distributed.get_world_size()
        distributed.all_gather_object(parts, vectors)
        before = self.queue.state()
        seen = self.queue.extend(vectors, dataset)
        self.queue.load(before)
        self.queue.extend(torch.cat(parts), dataset)
        return seen

    def state(self) -> list[Tensor]:
        """Return the queued phrases, for `load`."""
        return self.queue.state()

    def load(self, state: list[Tensor]) -> None:
        """Restore the queued phrases.

        Raises:
            ValueError: they belong to other data sets.
        """
        self.queue.load([rows.cpu() for rows in state])


def class_counts(data: RowData) -> Tensor:
    """(C,) how often each class of a set is drawn for the federated loss, before the square root.

    The number of its images; for stuff, which has none: see `DataRow.federated_pad`.
    """
    counts = torch.from_numpy(data.frequencies()).float()
    stuff = len(counts) - data.things
    if stuff and data.row.federated_pad == "kth":
        rank = min(data.things, max(1, int(len(counts) * _PAD_RANK)))
        counts[data.things :] = torch.kthvalue(counts[: data.things], rank).values
    return counts
