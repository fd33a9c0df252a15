"""The prompts of a training step: names, phrases or expressions (APE, sections 3.2 and 3.3).

    vocabulary   all names and synonyms, and words of other things; not fused with the image
    phrases      descriptions of regions, the same for all images of a batch; fused
    expressions  each image has its own descriptions, each of one region; fused

With phrases and expressions come earlier ones as negatives, from a queue (APE's embedding bank).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed
from torch.nn.functional import pad

from ape_model.network.ape import PromptFeatures
from ape_model.training.losses.criterion import Targets
from ape_model.training.prompts.embedding_queue import EmbeddingQueue
from ape_model.training.prompts.federated import draw_classes
from ape_model.training.settings import step_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.network.ape import Ape
    from ape_model.training.data.batch import Batch
    from ape_model.training.prompts.negatives import NegativeSampler

__all__ = ["EncodedPhrases", "PromptSampler", "PromptingConfig", "SampledPrompts", "merge_near"]

SAME_MEANING = 0.9
"""Cosine of two phrases' vectors from which they are taken to mean the same."""
MAX_PHRASES = 100
"""Phrases of a batch; where there are more, this many are drawn (`max_num_phrase` of the official
configurations, 100 to 128)."""


@dataclass(frozen=True, slots=True, eq=False)
class PromptingConfig:
    """What the prompts of one data set are."""

    negatives: NegativeSampler
    """Its names, and words of other things."""
    shared: bool = False
    """True: a description holds for all images of its batch (a phrase); False: for its own image
    (an expression)."""
    negative_words: int = 0
    """Number of words of other things in a step with names."""
    federated: int = 0
    """Number of classes in a step; 0: all."""
    frequencies: Tensor | None = None
    """(C,) number of images in which each class occurs; needed with `federated`."""
    memory: int = 0
    """Number of earlier phrases that are kept as negatives."""
    semantic: float = 0.0
    """Weight of the semantic map's loss."""
    named: bool = False
    """Whether other steps of this data set have names as prompts. Its phrases then add nothing to
    the backbone, which already learns from the names, and train only what follows it."""


@dataclass(frozen=True, slots=True, eq=False)
class SampledPrompts:
    """The prompts of one step."""

    prompts: PromptFeatures
    """As the network takes them."""
    targets: Targets
    """Which region each of them describes."""
    trains_backbone: bool = True
    """Whether the backbone gets gradients in this step."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPhrases:
    """Phrases as vectors."""

    vectors: Tensor
    """(1, L, D) for all images of the batch, or (B, L, D) for each."""
    truth: Tensor
    """(B, G, L) float32, 1 where a phrase describes a region."""
    distinct: Tensor
    """(K, D) the vectors of all different phrases, for the queue."""


class PromptSampler:
    """Chooses and embeds the prompts of every step, and keeps earlier phrases in a queue.

    Args:
        sets: The prompts of each data set of the run.
        width: D, channels of a prompt.
        seed: Of the run.
    """

    def __init__(self, sets: Sequence[PromptingConfig], *, width: int, seed: int) -> None:
        self.sets, self.width, self.seed = tuple(sets), width, seed
        self.queue = EmbeddingQueue(tuple(s.memory for s in sets), width)

    def __call__(self, model: Ape, batch: Batch, step: int) -> SampledPrompts:
        """Choose the prompts of a batch.

        Args:
            model: Whose zero token goes with names.
            batch: Images and regions, on the model's device.
            step: Of the run; the same step of the same seed gives the same prompts.
        """
        config, device = self.sets[batch.dataset], batch.images.device
        generator = torch.Generator().manual_seed(step_seed(self.seed, step))
        if not any(batch.sentences):
            self._enqueue(torch.zeros(0, self.width), batch.dataset)  # others may have phrases
            return _names(model, batch, config, generator)
        encode = _phrases if config.shared else _expressions
        phrases = encode(batch, config.negatives, generator)
        # Taken before this step's own phrases are queued: those are positives here.
        earlier = self._negatives(phrases.distinct, batch.dataset)  # (N, D)
        self._enqueue(phrases.distinct, batch.dataset)
        negatives = earlier.expand(len(phrases.vectors), -1, -1)
        vectors = torch.cat([phrases.vectors, negatives], dim=1)  # (1 | B, L + N, D)
        truth = pad(phrases.truth, (0, len(earlier)))  # (B, G, L + N), earlier ones are untrue
        prompts = PromptFeatures(fusion=vectors.to(device), classes=None)
        targets = Targets(truth.to(device), single=not config.shared)
        return SampledPrompts(prompts, targets, trains_backbone=not config.named)

    def _negatives(self, current: Tensor, dataset: int) -> Tensor:
        """(N, D) queued phrases that mean none of the (K, D) current ones."""
        queued = self.queue.older(dataset)
        return queued[(queued @ current.T).amax(1) < SAME_MEANING]

    def _enqueue(self, new: Tensor, dataset: int) -> None:
        """Queue the (K, D) phrases of all processes, so that all queues stay equal.

        Called at every step, also with K = 0: the other processes wait in the same collective.
        """
        if not self.sets[dataset].memory:
            return
        if distributed.is_initialized():
            parts: list[Tensor] = [new] * distributed.get_world_size()
            distributed.all_gather_object(parts, new)
            new = torch.cat(parts)
        # One by one: each is compared with those of this step that are queued already.
        for vector in new:
            queued = self.queue.older(dataset)  # (N, D)
            if not bool((queued @ vector >= SAME_MEANING).any()):
                self.queue.extend(vector[None], dataset)

    def state(self) -> list[Tensor]:
        """Return the queued phrases, for `load`."""
        return self.queue.state()

    def load(self, state: list[Tensor]) -> None:
        """Restore the queued phrases.

        Raises:
            ValueError: they belong to other data sets.
        """
        self.queue.load([rows.cpu() for rows in state])


def _names(
    model: Ape, batch: Batch, config: PromptingConfig, generator: torch.Generator
) -> SampledPrompts:
    """Prompts of a step with names; the image is fused with the zero token alone."""
    device, names = batch.images.device, config.negatives.names
    classes, chosen = batch.classes, None
    if config.federated and config.frequencies is not None:
        present = classes[batch.valid].cpu()
        chosen = draw_classes(present, config.frequencies, config.federated, generator)
        # Class ids become rows of the chosen names. Padding (class 0) may get any row: no loss
        # reads it.
        rows = torch.searchsorted(chosen, classes.cpu()).clamp(max=len(chosen) - 1)  # (B, G)
        classes, names = rows.to(device), names[chosen]
    vectors, truth = config.negatives.draw(classes, config.negative_words, generator, chosen)
    targets = Targets(
        truth.to(device), names=names.to(device), classes=classes, semantic=config.semantic
    )
    return SampledPrompts(model.vocabulary(vectors.to(device)), targets)


def _expressions(batch: Batch, names: NegativeSampler, _: torch.Generator) -> EncodedPhrases:
    """Each image has its own descriptions; shorter lists are repeated up to the longest."""
    # Images need lists of one length. A repeated phrase is true of the same regions as its first
    # copy, so that a short list only weighs its phrases more.
    own = [list(dict.fromkeys(text.casefold() for text, _ in of)) for of in batch.sentences]
    longest = max(len(texts) for texts in own)
    rows = [[texts[k % len(texts)] for k in range(longest)] for texts in own]
    flat = [text for texts in rows for text in texts]
    vectors = names.encode(flat).view(len(rows), longest, -1)  # (B, L, D)
    truth = torch.zeros(*batch.classes.shape, longest)  # (B, G, L)
    for image, (texts, sentences) in enumerate(zip(rows, batch.sentences, strict=True)):
        for text, region in sentences:
            truth[image, region, [k for k, t in enumerate(texts) if t == text.casefold()]] = 1
    first = [k for k, text in enumerate(flat) if text not in flat[:k]]  # rows of distinct texts
    return EncodedPhrases(vectors, truth, vectors.flatten(0, 1)[first])


def _phrases(batch: Batch, names: NegativeSampler, generator: torch.Generator) -> EncodedPhrases:
    """All images share all descriptions; those that mean the same are one prompt."""
    # Three steps from texts to columns: equal texts are one, MAX_PHRASES of them get a row, and
    # rows of near vectors share the column of their representative.
    found = [(b, text.casefold(), g) for b, own in enumerate(batch.sentences) for text, g in own]
    texts = list(dict.fromkeys(text for _, text, _ in found))
    order = torch.randperm(len(texts), generator=generator)[:MAX_PHRASES].sort().values
    rows = {texts[k]: row for row, k in enumerate(order.tolist())}
    vectors = names.encode(list(rows))  # (R, D)
    kept, representative = merge_near(vectors, SAME_MEANING)
    truth = torch.zeros(*batch.classes.shape, len(kept))  # (B, G, L)
    for image, text, region in found:
        if text in rows:
            truth[image, region, representative[rows[text]]] = 1
    return EncodedPhrases(vectors[kept][None], truth, vectors[kept])


def merge_near(vectors: Tensor, threshold: float) -> tuple[list[int], list[int]]:
    """Merge vectors that are near an earlier one (greedy, in order).

    Args:
        vectors: (N, D) of length one.
        threshold: Cosine from which two vectors are merged.

    Returns:
        The rows that are kept, and for each of the N vectors the index among the kept ones of the
        one that represents it.
    """
    kept: list[int] = []
    representative: list[int] = []
    for row, vector in enumerate(vectors):
        cosine = vectors[kept] @ vector  # (kept so far,)
        if kept and float(cosine.max()) >= threshold:
            representative.append(int(cosine.argmax()))
        else:
            representative.append(len(kept))
            kept.append(row)
    return kept, representative
