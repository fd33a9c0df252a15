"""Distil a sentence encoder into Nano's text tower.

The tower is trained on three losses at once: the distance to the teacher's whitened vector, of
names, keywords and common words; a contrastive loss in the batch; and, for sentences of size and
position, the relation and both nouns, which linear probes read from the one vector.
"""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ape_model.text.nano_tower import NanoText, NanoTokenizer, WordIds, split_words
from ape_model.training.errors import DataError
from ape_model.training.text_tower.templates import RELATIONS, random_phrase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ape_model.config import NanoTextConfig
    from ape_model.training.text_tower.teacher import Teacher

__all__ = [
    "Corpus",
    "DistilConfig",
    "build_corpus",
    "distil",
    "read_cldr",
]


@dataclass(frozen=True, slots=True)
class DistilConfig:
    """Length, optimizer and corpus of a distillation."""

    steps: int = 3000
    """Updates."""
    batch: int = 384
    """Texts of an update."""
    learning_rate: float = 1e-3
    """Largest learning rate of the one-cycle schedule."""
    whitening: float = 0.7
    """Exponent of the whitening: 0 keeps the teacher's spectrum, 1 makes it flat."""
    temperature: float = 0.07
    """Of the contrastive loss (as CLIP's initial value)."""
    forget: float = 0.15
    """Probability that a word's own row is hidden, so that its pieces learn to replace it."""
    phrases: int = 16000
    """Sentences of the corpus."""
    seed: int = 0
    """Of everything that is drawn."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts, and the vectors that the tower is trained on."""

    texts: list[str]
    """N names, keywords, words and sentences, in this order."""
    targets: Tensor
    """(N, hidden) float32 of length one."""
    relation: Tensor
    """(N,) int64, row of `RELATIONS`; -1 where the text is not a sentence."""
    meant: Tensor
    """(N, hidden): target of the noun that a sentence describes, zero where there is none."""
    landmark: Tensor
    """(N, hidden): target of its second noun, zero where there is none."""
    words: list[str]
    """Words with a row of their own in the tower."""


def read_cldr(path: Path) -> dict[str, list[str]]:
    """Read name -> keywords from a CLDR annotations file (`annotations/en.xml`).

    Raises:
        DataError: the file cannot be read or names nothing.
    """
    names: dict[str, str] = {}
    keywords: dict[str, list[str]] = {}
    try:
        nodes = list(ET.parse(path).getroot().iter("annotation"))  # noqa: S314 (a file of the user's own system)
    except (OSError, ET.ParseError) as error:
        raise DataError(f"{path} is no CLDR annotations file: {error}") from error
    for node in nodes:
        sign, text = node.get("cp", ""), node.text or ""
        if node.get("type") == "tts":
            names[sign] = text
        else:
            keywords[sign] = [k.strip() for k in text.split("|")]
    found = {name: keywords.get(sign, []) for sign, name in names.items() if split_words(name)}
    if not found:
        raise DataError(f"{path} holds no names (annotations of type tts)")
    return found


def _whitener(vectors: Tensor, width: int, power: float) -> Callable[[Tensor], Tensor]:
    """Fit a projection of (N, D) vectors to `width` axes with a flatter spectrum.

    A sentence encoder's vectors have a few strong axes, which make all names alike. Scaling axis k
    by (value_k / value_0) ** -power weakens them. The projected vectors have length one.
    """
    mean = vectors.mean(0)
    # Principal axes are the rows of `axes`, (min(N, D), D), strongest first.
    _, values, axes = torch.linalg.svd(vectors - mean, full_matrices=False)
    scale = (values[:width] / values[0]) ** -power
    matrix = axes[:width].T * scale  # (D, width)

    def whiten(x: Tensor) -> Tensor:
        return functional.normalize((x - mean) @ matrix, dim=-1)

    return whiten


def _synonym_targets(
    cldr: dict[str, list[str]], texts: list[str], targets: Tensor, pull: float = 0.4
) -> Tensor:
    """Move the targets of keywords of one or two names towards the targets of those names."""
    rows = {text: row for row, text in enumerate(texts)}
    owners: dict[str, list[str]] = {}
    for name, keywords in cldr.items():
        for keyword in keywords:
            if keyword not in cldr:
                owners.setdefault(keyword, []).append(name)
    moved = targets.clone()
    for keyword, names in owners.items():
        # A keyword of many names ("animal") is a kind and no synonym.
        if len(names) <= 2 and keyword in rows:
            goal = torch.stack([targets[rows[n]] for n in names]).mean(0)
            moved[rows[keyword]] = (1 - pull) * targets[rows[keyword]] + pull * goal
    return functional.normalize(moved, dim=-1)


def _collect(cldr: dict[str, list[str]], frequent: list[str]) -> list[str]:
    """Return names, keywords, plurals and frequent words, each once, in this order."""
    named = [*cldr, *(k for ks in cldr.values() for k in ks if split_words(k))]
    plurals = [f"{n}s" for n in named if n.isalpha() and not n.endswith("s")]
    return list(dict.fromkeys(t.casefold() for t in [*named, *plurals, *frequent]))


def build_corpus(
    cldr: dict[str, list[str]],
    teacher: Teacher,
    config: DistilConfig,
    sizes: NanoTextConfig,
    drawn: Sequence[str],
) -> Corpus:
    """Collect texts and the teacher's vectors of them.

    Args:
        cldr: Name -> keywords.
        teacher: The sentence encoder.
        config: Length, optimizer and corpus.
        sizes: The tower's sizes.
        drawn: Names or keywords in `cldr` that are things of the drawn world.

    Returns:
        The corpus; half of its sentences are about `drawn` only.
    """
    rng = random.Random(config.seed)  # noqa: S311 - a seed, not a secret
    cldr = {n.casefold(): [k.casefold() for k in ks] for n, ks in cldr.items()}
    texts = _collect(cldr, teacher.vocabulary()[:12000])
    named = [t for t in texts[: sum(1 + len(k) for k in cldr.values())] if len(split_words(t)) <= 3]
    pools = (named, list(drawn))
    phrases = [random_phrase(pools[k % 2], rng) for k in range(config.phrases)]
    # Axes are fitted to names and words alone: sentences of a few templates are too alike.
    vectors = teacher.encode([*texts, *(p.text for p in phrases)])
    whiten = _whitener(vectors[: len(texts)], sizes.hidden, config.whitening)
    plain = _synonym_targets(cldr, texts, whiten(vectors[: len(texts)]))
    targets = torch.cat([plain, whiten(vectors[len(texts) :])])
    words = [w for t in [*texts, *(p.text for p in phrases)] for w in split_words(t)]
    return Corpus(
        texts=[*texts, *(p.text for p in phrases)],
        targets=targets,
        relation=torch.tensor([-1] * len(texts) + [p.relation for p in phrases]),
        meant=_noun_targets([None] * len(texts) + [p.meant for p in phrases], texts, plain),
        landmark=_noun_targets([None] * len(texts) + [p.landmark for p in phrases], texts, plain),
        words=list(dict.fromkeys(words))[: sizes.words],
    )


def _noun_targets(nouns: Sequence[str | None], texts: list[str], targets: Tensor) -> Tensor:
    """(N, hidden) target of each noun, zero where there is none."""
    rows = {text: row for row, text in enumerate(texts)}
    zero = torch.zeros(targets.shape[1])
    return torch.stack([zero if n is None else targets[rows[n]] for n in nouns])


class _Probes(nn.Module):
    """Linear probes of relation, described noun and landmark, for training only."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.relation = nn.Linear(hidden, len(RELATIONS))
        self.meant = nn.Linear(hidden, hidden)
        self.landmark = nn.Linear(hidden, hidden)

    def loss(self, vectors: Tensor, corpus: Corpus, rows: Tensor) -> Tensor:
        """Return the mean loss over the batch's sentences; `vectors` are (B, hidden)."""
        sentence = corpus.relation[rows] >= 0
        vectors, rows = vectors[sentence], rows[sentence]
        # Vectors have length one: without the factor, logits would stay small for long.
        relation = functional.cross_entropy(8 * self.relation(vectors), corpus.relation[rows])
        meant = 1 - functional.cosine_similarity(self.meant(vectors), corpus.meant[rows])
        landmark = 1 - functional.cosine_similarity(self.landmark(vectors), corpus.landmark[rows])
        has_landmark = corpus.landmark[rows].norm(dim=1) > 0
        return relation + 2 * meant.mean() + 2 * landmark[has_landmark].mean()


def _loss(vectors: Tensor, corpus: Corpus, rows: Tensor, config: DistilConfig) -> Tensor:
    """Distance to the teacher's vector plus the contrastive loss; sentences weigh less."""
    targets = corpus.targets[rows]
    weight = torch.where(corpus.relation[rows] >= 0, 0.3, 1.0)
    near = ((1 - (vectors * targets).sum(1)) * weight).mean()
    logits = vectors @ targets.T / config.temperature  # (B, B), a text's own target on the diagonal
    own = functional.cross_entropy(logits, torch.arange(len(rows)), reduction="none")  # (B,)
    return 4 * near + 0.5 * (own * weight).mean()


def distil(
    corpus: Corpus,
    config: DistilConfig,
    sizes: NanoTextConfig,
    report: Callable[[int, float], None],
) -> NanoText:
    """Train the tower.

    Args:
        corpus: Texts and targets.
        config: Length, optimizer and corpus.
        sizes: The tower's sizes.
        report: Called every 100 steps with the step and the loss.

    Returns:
        The trained tower, in eval mode.
    """
    torch.manual_seed(config.seed)
    tower, probes = _start(corpus, sizes), _Probes(sizes.hidden)
    ids = NanoTokenizer(corpus.words, sizes)(corpus.texts)
    parameters = [*tower.parameters(), *probes.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.05
    )
    for step in range(config.steps):
        rows = torch.randint(len(corpus.texts), (config.batch,))
        vectors = tower(_take(ids, rows, config.forget))
        loss = _loss(vectors, corpus, rows, config) + 0.5 * probes.loss(vectors, corpus, rows)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            report(step, loss.item())
    return tower.eval()


def _start(corpus: Corpus, sizes: NanoTextConfig) -> NanoText:
    """Make a tower whose words start at the teacher's vectors, and its layers near identity."""
    tower = NanoText(sizes)
    rows = {text: row for row, text in enumerate(corpus.texts)}
    with torch.no_grad():
        for row, word in enumerate(corpus.words, start=1):
            if word in rows:
                tower.words.weight[row] = 4 * corpus.targets[rows[word], : sizes.width]
        for linear in (tower.lift, tower.out):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)
        # Weak residual branches: at first, the tower is nearly the mean of the words' vectors.
        for name, weight in tower.named_parameters():
            if name.endswith(("proj.weight", "fc2.weight")):
                weight.mul_(0.1)
    return tower


def _take(ids: WordIds, rows: Tensor, forget: float) -> WordIds:
    """Take some prompts, truncated to their longest, and hide some words' own rows."""
    mask = ids.mask[rows]
    T = int(mask.sum(1).max())
    words = ids.words[rows, :T]
    words = words * (torch.rand(words.shape) >= forget)  # row 0 is an unknown word
    return WordIds(words, ids.pieces[rows, :T], mask[:, :T])
