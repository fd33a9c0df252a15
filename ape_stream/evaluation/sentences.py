"""Is the region found that a description means, among others of the same noun?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_stream.evaluation.names import LOW
from ape_stream.masks import crop, iou_matrix
from ape_stream.types import Prompt, PromptKind, PromptSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ape_stream.evaluation.plan import EvaluationPlan, Report
    from ape_stream.evaluation.timing import TimedPerceiver
    from ape_stream.protocols.worlds import CaptionedImage, Phrase, World
    from ape_stream.types import Mask

__all__ = ["judge_sentences"]

RIGHT_IOU = 0.5
"""Mask IoU from which the answer to a sentence is the region that it describes."""
OUTCOMES = ("right", "nothing", "only_wrong")
"""What a user gets for a sentence: the region that it describes, no region, others alone."""


def judge_sentences(model: TimedPerceiver, world: World, plan: EvaluationPlan) -> Report:
    """The same descriptions, fused with the image and not."""
    rng = np.random.default_rng((plan.seed, 2))
    images = [world.sentence_scene(seed, plan.size(k)) for k, seed in enumerate(plan.seeds)]
    # One phrase of each kind per image: else the most frequent kind would outweigh the others.
    asked = [_one_of_each(image, rng) for image in images]
    fused = _best_answers(model, images, asked, PromptKind.SENTENCE)
    unfused = _best_answers(model, images, asked, PromptKind.VOCABULARY)
    at_threshold = _asked(model, images, asked, PromptKind.SENTENCE, None)
    outcomes = [_outcome(wanted, masks) for wanted, masks, _ in at_threshold]
    phrases = [phrase for some in asked for phrase in some]
    by_relation: dict[str, list[bool]] = {}
    for phrase, right in zip(phrases, fused, strict=True):
        by_relation.setdefault(phrase.relation, []).append(right)
    return {
        "sentences": len(phrases),
        "sentence_accuracy": float(np.mean(fused)),
        "sentence_accuracy_unfused": float(np.mean(unfused)),
        # A guess among the target and the things that the phrase could be mistaken for.
        "sentence_chance": float(np.mean([1 / (1 + len(p.distractors)) for p in phrases])),
        "sentence_accuracy_by_relation": {
            relation: float(np.mean(right)) for relation, right in sorted(by_relation.items())
        },
        "sentences_at_threshold": {
            outcome: outcomes.count(outcome) / len(outcomes) for outcome in OUTCOMES
        },
    }


def _one_of_each(image: CaptionedImage, rng: np.random.Generator) -> list[Phrase]:
    """One random phrase per relation, in the image's order."""
    order = rng.permutation(len(image.phrases)).tolist()
    first: dict[str, int] = {}
    for k in order:
        first.setdefault(image.phrases[k].relation, k)
    return [image.phrases[k] for k in sorted(first.values())]


def _asked(
    model: TimedPerceiver,
    images: Sequence[CaptionedImage],
    asked: Sequence[Sequence[Phrase]],
    kind: PromptKind,
    threshold: float | None,
) -> Iterator[tuple[NDArray[np.bool_], list[Mask], NDArray[np.float32]]]:
    """Of each phrase the region that it describes, and the masks and scores of what is found."""
    for image, phrases in zip(images, asked, strict=True):
        model.prepare(PromptSet(tuple(Prompt(p.text, kind, threshold=threshold) for p in phrases)))
        (found,) = model.perceive([image.scene])
        masks = found.masks_for("judging sentences")
        for position, phrase in enumerate(phrases):
            regions = np.flatnonzero(found.prompt_ids == position)
            wanted = image.scene.instance_map == phrase.target
            yield wanted, [masks[k] for k in regions], found.scores[regions]


def _best_answers(
    model: TimedPerceiver,
    images: Sequence[CaptionedImage],
    asked: Sequence[Sequence[Phrase]],
    kind: PromptKind,
) -> list[bool]:
    """Whether the best region for each phrase is the one that it describes."""
    return [
        len(masks) > 0 and _matches(wanted, masks)[int(scores.argmax())]
        for wanted, masks, scores in _asked(model, images, asked, kind, LOW)
    ]


def _outcome(wanted: NDArray[np.bool_], masks: list[Mask]) -> str:
    """One of `OUTCOMES`."""
    if not masks:
        return "nothing"
    return "right" if any(_matches(wanted, masks)) else "only_wrong"


def _matches(wanted: NDArray[np.bool_], masks: Sequence[Mask]) -> list[bool]:
    """Which masks are that of the region."""
    overlaps: list[bool] = (iou_matrix([crop(wanted)], masks)[0] >= RIGHT_IOU).tolist()
    return overlaps
