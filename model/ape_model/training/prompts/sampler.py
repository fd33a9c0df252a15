"""What a batch is asked for: names, phrases or expressions (APE, sections 3.2 and 3.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

from ape_model.network.ape import PromptFeatures
from ape_model.training.losses.criterion import Targets
from ape_model.training.prompts.embedding_queue import PhraseBank
from ape_model.training.prompts.federated import draw_classes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.network.nano import Nano
    from ape_model.training.data.batch import Batch
    from ape_model.training.prompts.negatives import PromptBank

__all__ = ["Asked", "Prompter", "Speech", "merge_near"]

SAME = 0.9
"""Phrases whose vectors are nearer (cosine) are taken to mean the same."""
MOST_PHRASES = 100
"""Phrases of a batch; more are drawn from."""


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """How one data set is spoken of."""

    bank: PromptBank
    """Its names."""
    shared: bool = False
    """Whether a description holds for all pictures of its batch (a phrase) or for its own alone
    (an expression)."""
    strangers: int = 0
    """Words of other things that are asked for beside the names."""
    federated: int = 0
    """Classes that a step asks for; 0: all."""
    frequencies: Tensor | None = None
    """(C,) in how many pictures each class occurs; needed where `federated` is."""
    memory: int = 0
    """Earlier descriptions that are kept as negatives."""
    semantic: float = 0.0
    """Weight of the semantic map's loss."""
    named: bool = False
    """Whether other steps of the same data set ask for names: its sentences then say nothing new
    about how things look, and train only what stands on the backbone."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """The prompts of one step."""

    prompts: PromptFeatures
    targets: Targets
    batch: Batch
    """The batch; its classes are rows of `targets.names`."""
    teaches_sight: bool = True
    """Whether the backbone learns from it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Said:
    """Descriptions as vectors."""

    vectors: Tensor
    """(1 | B, L, D), for all pictures or for each."""
    truth: Tensor
    """(B, G, L) float32, 1 where a description is true of a region."""
    new: Tensor
    """(K, D) the same vectors once each, to be remembered."""


class Prompter:
    """Chooses and embeds the prompts of every step, and remembers phrases (the embedding bank).

    Args:
        sets: how each data set of the run is spoken of.
        width: D, channels of a prompt.
        seed: of the run.
    """

    def __init__(self, sets: Sequence[Speech], *, width: int, seed: int) -> None:
        self.sets, self.seed = tuple(sets), seed
        self.memory = PhraseBank(tuple(s.memory for s in sets), width)

    def __call__(self, model: Nano, batch: Batch, step: int) -> Asked:
        """Ask for what is in a batch.

        Args:
            model: whose zero token goes with names.
            batch: pictures and regions, on the model's device.
            step: of the run.
        """
        speech, device = self.sets[batch.dataset], batch.images.device
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        if not any(batch.sentences):
            asked = _name(model, batch, speech, generator)
            self._remember(torch.zeros(0, self.memory.state()[0].shape[1]), batch.dataset)
            return asked
        said = (_phrases if speech.shared else _expressions)(batch, speech.bank, generator)
        negatives = self._negatives(said.new, batch.dataset)
        self._remember(said.new, batch.dataset)
        vectors = torch.cat([said.vectors, negatives.expand(len(said.vectors), -1, -1)], dim=1)
        truth = torch.nn.functional.pad(said.truth, (0, len(negatives)))
        prompts = PromptFeatures(fusion=vectors.to(device), classes=None)
        targets = Targets(truth.to(device), None, single=not speech.shared)
        return Asked(prompts, targets, batch, teaches_sight=not speech.named)

    def _negatives(self, current: Tensor, dataset: int) -> Tensor:
        """(N, D) remembered descriptions that mean none of the (K, D) current ones."""
        older = self.memory.older(dataset)
        return older[(older @ current.T).amax(1) < SAME]

    def _remember(self, new: Tensor, dataset: int) -> None:
        """Put descriptions of all processes into the bank, so that all banks stay alike.

        Called at every step: a process whose pictures say nothing must not leave others waiting.
        """
        if not self.sets[dataset].memory:
            return
        if distributed.is_initialized():
            parts: list[Tensor] = [new] * distributed.get_world_size()
            distributed.all_gather_object(parts, new)
            new = torch.cat(parts)
        for vector in new:
            older = self.memory.older(dataset)
            if not bool((older @ vector >= SAME).any()):  # what is known takes no second place
                self.memory.extend(vector[None], dataset)

    def state(self) -> list[Tensor]:
        """Return what is remembered, for `load`."""
        return self.memory.state()

    def load(self, state: list[Tensor]) -> None:
        """Take up what was remembered.

        Raises:
            ValueError: it belongs to other data sets.
        """
        self.memory.load([rows.cpu() for rows in state])


def _name(model: Nano, batch: Batch, speech: Speech, generator: torch.Generator) -> Asked:
    """Ask for names; the image sees the zero token alone."""
    device, bank, names = batch.images.device, speech.bank, speech.bank.names
    chosen = None
    if speech.federated and speech.frequencies is not None:
        present = batch.classes[batch.valid].cpu()
        chosen = draw_classes(present, speech.frequencies, speech.federated, generator)
        # Padding has class 0, which need not be chosen; what it becomes is never read.
        rows = torch.searchsorted(chosen, batch.classes.cpu()).clamp(max=len(chosen) - 1)
        batch, names = replace(batch, classes=rows.to(device)), names[chosen]
    vectors, truth = bank.draw(batch.classes, speech.strangers, generator, chosen)
    prompts = model.vocabulary(vectors.to(device))
    targets = Targets(truth.to(device), names.to(device), semantic=speech.semantic)
    return Asked(prompts, targets, batch)


def _expressions(batch: Batch, bank: PromptBank, _: torch.Generator) -> _Said:
    """Every picture's own descriptions; short lists repeat theirs up to the longest."""
    own = [list(dict.fromkeys(text.casefold() for text, _ in said)) for said in batch.sentences]
    longest = max(len(texts) for texts in own)
    rows = [[texts[k % len(texts)] for k in range(longest)] for texts in own]
    flat = [text for texts in rows for text in texts]
    vectors = bank.encode(flat).view(len(rows), longest, -1)
    truth = torch.zeros(*batch.classes.shape, longest)
    for picture, (texts, said) in enumerate(zip(rows, batch.sentences, strict=True)):
        for text, region in said:
            truth[picture, region, [k for k, t in enumerate(texts) if t == text.casefold()]] = 1
    seen = [k for k, text in enumerate(flat) if text not in flat[:k]]
    return _Said(vectors, truth, vectors.flatten(0, 1)[seen])


def _phrases(batch: Batch, bank: PromptBank, generator: torch.Generator) -> _Said:
    """Descriptions of all pictures for all pictures; near ones are one."""
    said = [(b, text.casefold(), g) for b, own in enumerate(batch.sentences) for text, g in own]
    texts = list(dict.fromkeys(text for _, text, _ in said))
    order = torch.randperm(len(texts), generator=generator)[:MOST_PHRASES].sort().values
    rows = {texts[k]: row for row, k in enumerate(order.tolist())}
    vectors = bank.encode(list(rows))
    kept, meaning = merge_near(vectors, SAME)
    truth = torch.zeros(*batch.classes.shape, len(kept))
    for picture, text, region in said:
        if text in rows:
            truth[picture, region, meaning[rows[text]]] = 1
    return _Said(vectors[kept][None], truth, vectors[kept])


def merge_near(vectors: Tensor, threshold: float) -> tuple[list[int], list[int]]:
    """Find which vectors stand for all, the first ones first.

    Args:
        vectors: (N, D) of length one.
        threshold: cosine from which a vector is stood for by an earlier one.

    Returns:
        the rows that stand for others, and for each of the N vectors the position of its
        representative among them.
    """
    kept: list[int] = []
    meaning: list[int] = []
    for row, vector in enumerate(vectors):
        cosine = vectors[kept] @ vector
        if kept and float(cosine.max()) >= threshold:
            meaning.append(int(cosine.argmax()))
        else:
            meaning.append(len(kept))
            kept.append(row)
    return kept, meaning
