"""Is the region found that a description means, among others of the same noun?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_stream.evaluation.names import LOW
from ape_stream.masks import crop, iou_matrix
from ape_stream.types import Prompt, PromptKind, PromptSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_stream.evaluation.plan import EvaluationPlan, Report
    from ape_stream.evaluation.timing import TimedPerceiver
    from ape_stream.protocols.worlds import AnnotatedImage, CaptionedImage, Phrase, World
    from ape_stream.types import Instances

__all__ = ["judge_sentences"]

RIGHT_IOU = 0.5
"""Mask IoU from which the answer to a sentence is the region that it describes."""


def judge_sentences(model: TimedPerceiver, world: World, plan: EvaluationPlan) -> Report:
    """The same descriptions, fused with the image and not."""
    rng = np.random.default_rng((plan.seed, 2))
    images = [world.sentence_scene(seed, plan.size(k)) for k, seed in enumerate(plan.seeds)]
    # One phrase of each kind per image: else the most frequent kind would outweigh the others.
    asked = [_one_of_each(image, rng) for image in images]
    fused = _answers(model, images, asked, PromptKind.SENTENCE)
    unfused = _answers(model, images, asked, PromptKind.VOCABULARY)
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
    }


def _one_of_each(image: CaptionedImage, rng: np.random.Generator) -> list[Phrase]:
    """One random phrase per relation, in the image's order."""
    order = rng.permutation(len(image.phrases)).tolist()
    first: dict[str, int] = {}
    for k in order:
        first.setdefault(image.phrases[k].relation, k)
    return [image.phrases[k] for k in sorted(first.values())]


def _answers(
    model: TimedPerceiver,
    images: Sequence[CaptionedImage],
    asked: Sequence[Sequence[Phrase]],
    kind: PromptKind,
) -> list[bool]:
    """Whether the best region for each phrase is the one that it describes."""
    right = []
    for image, phrases in zip(images, asked, strict=True):
        model.prepare(PromptSet(tuple(Prompt(p.text, kind, threshold=LOW) for p in phrases)))
        (found,) = model.perceive([image.scene])
        right += [_is_right(image.scene, found, k, p.target) for k, p in enumerate(phrases)]
    return right


def _is_right(truth: AnnotatedImage, found: Instances, prompt_id: int, target: int) -> bool:
    regions = np.flatnonzero(found.prompt_ids == prompt_id)
    if len(regions) == 0:
        return False
    best = int(regions[found.scores[regions].argmax()])  # highest score of that prompt
    wanted = crop(truth.instance_map == target)
    return bool(
        iou_matrix([wanted], [found.masks_for("judging sentences")[best]])[0, 0] >= RIGHT_IOU
    )
