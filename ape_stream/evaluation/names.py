"""Are things found under their names, under synonyms, and not under the names of others?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_stream.evaluation.plan import size_name
from ape_stream.evaluation.precision import (
    ImageResult,
    average_precision,
    class_agnostic_recall,
    precision_recall,
)
from ape_stream.types import Prompt, PromptKind, PromptSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_stream.evaluation.plan import EvaluationPlan, Figures, Report
    from ape_stream.evaluation.timing import TimedPerceiver
    from ape_stream.protocols.worlds import AnnotatedImage, World

__all__ = [
    "LOW",
    "UNKNOWN_WORDS",
    "judge_names",
    "judge_synonyms",
    "judge_unknown_words",
    "name_prompts",
]

LOW = 0.01
"""Threshold for average precision and for the best answer to a sentence."""
ABSENT = 100
"""Absent words asked for in each image; fewer where the world has fewer."""
MIXED = "mixed"
"""Name of the figures of calls whose images differ in size."""

_NOUNS = """
sofa wardrobe violin harp giraffe hippopotamus walrus lizard ostrich beaver tractor wheel
submarine canoe bagpipe lantern envelope pencil stapler printer keyboard refrigerator oven
microwave blender kettle fork spoon plate bowl pillow blanket curtain window staircase bridge
lighthouse windmill factory stadium statue fountain bench mailbox hydrant dumpster crane
bulldozer forklift scooter wheelchair stroller surfboard racket javelin dumbbell treadmill
spinach cabbage radish walnut waffle sandwich noodles omelette mustard bracelet necklace wallet
glove scarf belt apron compass thermometer syringe stethoscope satellite
"""
UNKNOWN_WORDS = tuple(_NOUNS.split())
"""Everyday nouns; those that a world does know are left out when it is judged."""


def name_prompts(texts: Sequence[str], threshold: float | None, things: int) -> PromptSet:
    """One prompt per class, under these texts; a prompt's id is its class id.

    Args:
        texts: One per class, things first.
        threshold: Of the things; None for the model's own. Stuff always takes the model's own: all
            regions of a stuff prompt are one, and at a low threshold that is the whole image.
        things: How many of the texts are things.
    """
    kind = PromptKind.VOCABULARY
    given = [Prompt(text, kind, threshold=threshold) for text in texts[:things]]
    return PromptSet((*given, *(Prompt(text, kind, stuff=True) for text in texts[things:])))


def _images(model: TimedPerceiver, world: World, plan: EvaluationPlan) -> list[AnnotatedImage]:
    images = []
    for k, seed in enumerate(plan.seeds):
        with model.timed("render"):
            images.append(world.scene(seed, plan.size(k)))
    return images


def _judge(
    model: TimedPerceiver, images: Sequence[AnnotatedImage], prompts: PromptSet, batch: int = 1
) -> list[ImageResult]:
    """Find the prompts in every image, `batch` images a call."""
    model.prepare(prompts)
    results = []
    for start in range(0, len(images), batch):
        some = images[start : start + batch]
        found = model.perceive(some)
        results += [ImageResult.of(*pair) for pair in zip(some, found, strict=True)]
    return results


def judge_names(model: TimedPerceiver, world: World, plan: EvaluationPlan) -> Report:
    """Every main name asked for in every image: figures of all, of each size, and mixed."""
    images = _images(model, world, plan)
    low = name_prompts(world.names, LOW, world.things)
    default = name_prompts(world.names, None, world.things)
    weak = _judge(model, images, low)
    # `fps` counts the calls at the model's own threshold, as in a real run.
    before = model.seconds["perceive"]
    sure = _judge(model, images, default)
    seconds = model.seconds["perceive"] - before
    report: Report = {
        **_figures(weak, sure, world),
        "agnostic_recall50": class_agnostic_recall(weak, len(world.names)),
        "absent_fp_per_image": _absent(sure, world, plan.seed),
        "fps": len(images) / seconds if seconds > 0 else 0.0,
    }
    if (shapes := len(plan.sizes)) > 1:
        by_size = {
            # Images take the sizes in turn: every `shapes`-th one has the same.
            size_name(size): _figures(weak[k::shapes], sure[k::shapes], world)
            for k, size in enumerate(plan.sizes[: len(images)])
        }
        # One image of each size in a call: the smaller ones are padded to the largest.
        by_size[MIXED] = _figures(
            _judge(model, images, low, shapes), _judge(model, images, default, shapes), world
        )
        report["by_size"] = by_size
    return report


def _figures(weak: Sequence[ImageResult], sure: Sequence[ImageResult], world: World) -> Figures:
    """Figures of some images.

    Args:
        weak: What was found at a low threshold.
        sure: What was found at the model's own threshold.
        world: Where the images come from.
    """
    classes = len(world.names)
    average = average_precision(weak, classes)
    precision, recall = precision_recall(sure, classes)
    return {
        "things_ap50": average.mean50(slice(0, world.things)),
        "stuff_ap50": average.mean50(slice(world.things, None)),
        "ap50": average.mean50(),
        "mask_ap": average.mean(),
        "precision": precision,
        "recall": recall,
    }


def _absent(results: Sequence[ImageResult], world: World, seed: int) -> float:
    """Masks per image under a random ABSENT of the names that are true of nothing in it."""
    false = 0
    for k, one in enumerate(results):
        # Regions that need not be found are there all the same: their names are not absent.
        visible = {r.class_id for r in (*one.truth.instances, *one.truth.ignored)}
        absent = np.array([c for c in range(len(world.names)) if c not in visible], np.int64)
        # By image: the same names are asked for again when other images are added.
        rng = np.random.default_rng((seed, k))
        asked = rng.choice(absent, min(ABSENT, len(absent)), replace=False)
        false += int(np.isin(one.class_ids, asked).sum())
    return false / len(results)


def judge_synonyms(model: TimedPerceiver, world: World, plan: EvaluationPlan) -> Report:
    """Every class under one of its other words, drawn by the seed."""
    rng = np.random.default_rng((plan.seed, 1))
    texts = list(world.names)
    others: dict[int, list[str]] = {}
    for prompt in world.prompts[len(texts) :]:
        # A word for several classes (fruit) is no synonym of one.
        if len(prompt.class_ids) == 1:
            others.setdefault(prompt.class_ids[0], []).append(prompt.text)
    for class_id, words in others.items():
        texts[class_id] = str(rng.choice(words))
    results = _judge(model, _images(model, world, plan), name_prompts(texts, LOW, world.things))
    return {"synonym_ap50": average_precision(results, len(texts)).mean50()}


def judge_unknown_words(model: TimedPerceiver, world: World, plan: EvaluationPlan) -> Report:
    """Words that the world does not know: everything that is found under them is wrong."""
    # By single words: a noun inside of a longer name is known, too.
    known = {word for prompt in world.prompts for word in prompt.text.lower().split()}
    words = [word for word in UNKNOWN_WORDS if word not in known]
    prompts = PromptSet(tuple(Prompt(word, PromptKind.VOCABULARY) for word in words))
    results = _judge(model, _images(model, world, plan), prompts)
    named = sum(len(set(one.class_ids.tolist())) for one in results)
    return {"unknown_word_rate": named / (len(words) * len(results)), "unknown_words": len(words)}
