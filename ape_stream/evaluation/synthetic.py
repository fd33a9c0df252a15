"""Judge a perceiver on a synthetic world: names, synonyms, absent words, sentences, tracks."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ape_stream.evaluation.precision import (
    Judged,
    agnostic_recall,
    average_precision,
    precision_recall,
)
from ape_stream.evaluation.tracks import TrackBook, score_tracks
from ape_stream.masks import crop, iou_matrix
from ape_stream.types import Frame, Prompt, PromptKind, PromptSet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_stream.protocols import Perceiver, Tracker
    from ape_stream.protocols.worlds import AnnotatedImage, CaptionedImage, World
    from ape_stream.types import Instances

__all__ = ["UNKNOWN_WORDS", "EvaluationPlan", "Report", "evaluate"]

LOW = 0.01
"""Threshold for average precision and for the best answer to a sentence."""
ABSENT = 100
"""Absent words asked for in each picture; fewer where the world has fewer."""
RIGHT_IOU = 0.5
"""Mask IoU from which the answer to a sentence is the region that was meant."""

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

T = TypeVar("T")

Report = dict[str, float | int | str | dict[str, float]]
"""Figures by name, ready for JSON."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What is drawn and asked."""

    seed: int = 1_000_000
    """First seed: picture k has seed + k."""
    scenes: int = 100
    """Pictures for names, synonyms and absent words; as many again for sentences."""
    size: tuple[int, int] = (256, 256)
    """Height and width of pictures and videos, pixels."""
    videos: int = 3
    """Videos for the tracks; 0 leaves them out."""
    frames: int = 120
    """Frames of each video."""
    fps: float = 30.0
    """Frames per second of the videos."""

    def __post_init__(self) -> None:
        """Refuse numbers that give nothing to judge.

        Raises:
            ValueError: a number is out of range.
        """
        if self.scenes < 1 or self.videos < 0 or self.frames < 1 or self.fps <= 0 or self.seed < 0:
            raise ValueError(
                "scenes and frames are at least 1, videos and seed at least 0, fps > 0"
            )


@dataclass(slots=True)
class _Bench:
    """A perceiver with a clock around it."""

    perceiver: Perceiver
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: Counter[str] = field(default_factory=Counter)

    def timed(self, stage: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        done = work()
        self.seconds[stage] += time.perf_counter() - start
        self.calls[stage] += 1
        return done

    def prepare(self, prompts: PromptSet) -> None:
        self.timed("prepare", lambda: self.perceiver.prepare(prompts))

    def see(self, picture: AnnotatedImage, index: int = 0, time_s: float = 0.0) -> Instances:
        frame = Frame(picture.image, index, time_s)
        return self.timed("perceive", lambda: self.perceiver.perceive([frame])[0])

    def milliseconds(self) -> dict[str, float]:
        """Mean milliseconds of one call, by stage."""
        return {s: round(1e3 * self.seconds[s] / self.calls[s], 2) for s in sorted(self.calls)}


def evaluate(
    perceiver: Perceiver,
    world: World,
    plan: EvaluationPlan,
    tracker: Callable[[], Tracker],
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Judge a model; the figures are explained in `docs/evaluation.md`.

    Args:
        perceiver: the model.
        world: where pictures, words and truth come from.
        plan: how much is drawn.
        tracker: makes one tracker per video.
        progress: told what comes next.
    """
    bench = _Bench(perceiver)
    report: Report = {"words": len(world.names), "prompts": len(world.prompts)}
    parts: dict[str, Callable[[], Report]] = {
        "names": lambda: _names(bench, world, plan),
        "synonyms": lambda: _synonyms(bench, world, plan),
        "unknown words": lambda: _unknown(bench, world, plan),
        "sentences": lambda: _sentences(bench, world, plan),
        "tracks": lambda: _tracks(bench, world, plan, tracker),
    }
    for what, part in parts.items():
        progress(what)
        report |= part()
    height, width = plan.size
    given: Report = {"seed": plan.seed, "scenes": plan.scenes, "size": f"{width}x{height}"}
    return {**report, **given, "stage_ms": bench.milliseconds()}


def _name_prompts(texts: Sequence[str], threshold: float | None, things: int) -> PromptSet:
    """One prompt per class, under these texts; a prompt's id is its class id.

    Args:
        texts: one per class, things first.
        threshold: of the things; None for the model's own. Stuff always takes the model's own: all
            regions of a stuff prompt are one, and at a low threshold that is the whole picture.
        things: how many of the texts are things.
    """
    kind = PromptKind.VOCABULARY
    given = [Prompt(text, kind, threshold=threshold) for text in texts[:things]]
    return PromptSet((*given, *(Prompt(text, kind, stuff=True) for text in texts[things:])))


def _judge(bench: _Bench, pictures: Sequence[AnnotatedImage], prompts: PromptSet) -> list[Judged]:
    bench.prepare(prompts)
    return [Judged.of(picture, bench.see(picture, k)) for k, picture in enumerate(pictures)]


def _pictures(bench: _Bench, world: World, plan: EvaluationPlan) -> list[AnnotatedImage]:
    seeds = range(plan.seed, plan.seed + plan.scenes)
    return [bench.timed("render", lambda s=s: world.scene(s, plan.size)) for s in seeds]  # type: ignore[misc]


def _names(bench: _Bench, world: World, plan: EvaluationPlan) -> Report:
    """Every main name asked for in every picture."""
    pictures, classes = _pictures(bench, world, plan), len(world.names)
    weak = _judge(bench, pictures, _name_prompts(world.names, LOW, world.things))
    average = average_precision(weak, classes)
    before = bench.seconds["perceive"]
    sure = _judge(bench, pictures, _name_prompts(world.names, None, world.things))
    seconds = bench.seconds["perceive"] - before
    precision, recall = precision_recall(sure, classes)
    return {
        "things_ap50": average.mean50(slice(0, world.things)),
        "stuff_ap50": average.mean50(slice(world.things, None)),
        "ap50": average.mean50(),
        "mask_ap": average.mean(),
        "agnostic_recall50": agnostic_recall(weak, classes),
        "precision": precision,
        "recall": recall,
        "absent_fp_per_image": _absent(sure, world, plan.seed),
        "fps": len(pictures) / seconds if seconds > 0 else 0.0,
    }


def _absent(judged: Sequence[Judged], world: World, seed: int) -> float:
    """Masks a picture under a random ABSENT of the names that are true of nothing in it."""
    false = 0
    for k, one in enumerate(judged):
        shown = {r.class_id for r in (*one.picture.instances, *one.picture.ignored)}
        absent = np.array([c for c in range(len(world.names)) if c not in shown], np.int64)
        rng = np.random.default_rng((seed, k))
        asked = rng.choice(absent, min(ABSENT, len(absent)), replace=False)
        false += int(np.isin(one.class_ids, asked).sum())
    return false / len(judged)


def _synonyms(bench: _Bench, world: World, plan: EvaluationPlan) -> Report:
    """Every class under one of its other words, drawn by the seed."""
    rng = np.random.default_rng((plan.seed, 1))
    texts = list(world.names)
    others: dict[int, list[str]] = {}
    for prompt in world.prompts[len(texts) :]:
        if len(prompt.class_ids) == 1:
            others.setdefault(prompt.class_ids[0], []).append(prompt.text)
    for class_id, words in others.items():
        texts[class_id] = str(rng.choice(words))
    judged = _judge(bench, _pictures(bench, world, plan), _name_prompts(texts, LOW, world.things))
    return {"synonym_ap50": average_precision(judged, len(texts)).mean50()}


def _unknown(bench: _Bench, world: World, plan: EvaluationPlan) -> Report:
    """Words that the world does not know; whatever is found under them is nonsense."""
    known = {word for prompt in world.prompts for word in prompt.text.lower().split()}
    words = [word for word in UNKNOWN_WORDS if word not in known]
    prompts = PromptSet(tuple(Prompt(word, PromptKind.VOCABULARY) for word in words))
    judged = _judge(bench, _pictures(bench, world, plan), prompts)
    named = sum(len(set(one.class_ids.tolist())) for one in judged)
    return {"unknown_word_rate": named / (len(words) * len(judged)), "unknown_words": len(words)}


def _sentences(bench: _Bench, world: World, plan: EvaluationPlan) -> Report:
    """The same descriptions, fused with the picture and not."""
    rng = np.random.default_rng((plan.seed, 2))
    seeds = range(plan.seed, plan.seed + plan.scenes)
    spoken = [world.sentence_scene(seed, plan.size) for seed in seeds]
    # One phrase of each kind a picture: else the commonest kind would drown the others.
    chosen = [_one_of_each(one, rng) for one in spoken]
    fused = _answers(bench, spoken, chosen, PromptKind.SENTENCE)
    plain = _answers(bench, spoken, chosen, PromptKind.VOCABULARY)
    relations = [
        one.phrases[k].relation for one, ks in zip(spoken, chosen, strict=True) for k in ks
    ]
    by_relation = {
        relation: float(
            np.mean([f for f, r in zip(fused, relations, strict=True) if r == relation])
        )
        for relation in sorted(set(relations))
    }
    chance = [
        1 / (1 + len(one.phrases[k].distractors))
        for one, ks in zip(spoken, chosen, strict=True)
        for k in ks
    ]
    return {
        "sentences": len(relations),
        "sentence_accuracy": float(np.mean(fused)),
        "sentence_accuracy_unfused": float(np.mean(plain)),
        "sentence_chance": float(np.mean(chance)),
        "sentence_accuracy_by_relation": by_relation,
    }


def _one_of_each(spoken: CaptionedImage, rng: np.random.Generator) -> list[int]:
    """Positions of one random phrase per relation."""
    order = rng.permutation(len(spoken.phrases)).tolist()
    first: dict[str, int] = {}
    for k in order:
        first.setdefault(spoken.phrases[k].relation, k)
    return sorted(first.values())


def _answers(
    bench: _Bench, spoken: Sequence[CaptionedImage], chosen: Sequence[list[int]], kind: PromptKind
) -> list[bool]:
    """Whether the best region for each phrase is the one that was meant."""
    right = []
    for one, ks in zip(spoken, chosen, strict=True):
        phrases = [one.phrases[k] for k in ks]
        bench.prepare(PromptSet(tuple(Prompt(p.text, kind, threshold=LOW) for p in phrases)))
        found = bench.see(one.scene)
        for k, phrase in enumerate(phrases):
            right.append(_is_right(one.scene, found, k, phrase.target))
    return right


def _is_right(picture: AnnotatedImage, found: Instances, prompt_id: int, target: int) -> bool:
    mine = np.flatnonzero(found.prompt_ids == prompt_id)
    if len(mine) == 0:
        return False
    best = int(mine[found.scores[mine].argmax()])
    meant = crop(picture.instance_map == target)
    return bool(iou_matrix([meant], [found.masks[best]])[0, 0] >= RIGHT_IOU)


def _tracks(
    bench: _Bench, world: World, plan: EvaluationPlan, tracker: Callable[[], Tracker]
) -> Report:
    """Videos of moving things, every thing's name asked for in every frame."""
    if plan.videos == 0:
        return {}
    bench.prepare(_name_prompts(world.names[: world.things], None, world.things))
    books = []
    for seed in range(plan.seed, plan.seed + plan.videos):
        video = world.video(seed, plan.size, fps=plan.fps)
        book, follow = TrackBook(), tracker()
        for index in range(plan.frames):
            picture, now = video.scene(index), index / plan.fps
            found = bench.see(picture, index, now)
            tracked = bench.timed("track", lambda f=found, t=now: follow.update(f, t))  # type: ignore[misc]  # noqa: B023
            book.add(picture, tracked)
        books.append(book)
    score = score_tracks(books)
    return {
        "track_mota": score.mota,
        "track_idf1": score.idf1,
        "track_switches": score.switches,
        "videos": plan.videos,
        "video_frames": plan.frames,
    }
