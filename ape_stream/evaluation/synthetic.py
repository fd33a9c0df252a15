"""Judge a perceiver on a synthetic world: names, synonyms, absent words, sentences, tracks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ape_stream.evaluation.names import judge_names, judge_synonyms, judge_unknown_words
from ape_stream.evaluation.plan import size_name
from ape_stream.evaluation.sentences import judge_sentences
from ape_stream.evaluation.timing import TimedPerceiver
from ape_stream.evaluation.tracks import judge_tracks

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_stream.evaluation.plan import EvaluationPlan, Report
    from ape_stream.protocols import Perceiver, Tracker
    from ape_stream.protocols.worlds import World

__all__ = ["evaluate"]


def evaluate(
    perceiver: Perceiver,
    world: World,
    plan: EvaluationPlan,
    tracker: Callable[[], Tracker],
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Judge a model; the figures are explained in `docs/evaluation.md`.

    Args:
        perceiver: The model.
        world: Where images, words and truth come from.
        plan: How much is drawn, and in which sizes.
        tracker: Makes one tracker per video.
        progress: Called with what comes next.

    Raises:
        ValueError: the world cannot draw a size.
    """
    # Tried first: a size that one part cannot have must not cost the time of those before it.
    for size in plan.sizes:
        world.sentence_scene(plan.seed, size)
    model = TimedPerceiver(perceiver)
    report: Report = {"words": len(world.names), "prompts": len(world.prompts)}
    parts: dict[str, Callable[[], Report]] = {
        "names": lambda: judge_names(model, world, plan),
        "synonyms": lambda: judge_synonyms(model, world, plan),
        "unknown words": lambda: judge_unknown_words(model, world, plan),
        "sentences": lambda: judge_sentences(model, world, plan),
        "tracks": lambda: judge_tracks(model, world, plan, tracker),
    }
    for name, part in parts.items():
        progress(name)
        report |= part()
    return {
        **report,
        "seed": plan.seed,
        "scenes": plan.scenes,
        "size": ", ".join(map(size_name, plan.sizes)),
        "stage_ms": model.milliseconds(),
    }
