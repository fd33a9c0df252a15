"""From a teacher and a list of names to the file of a text tower that has passed the check."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ape_model.config import NANO
from ape_model.loading import NanoTextEncoder
from ape_model.training.errors import DataError
from ape_model.training.text_tower.check import check_diversity, measure_diversity
from ape_model.training.text_tower.distillation import build_corpus, distil, read_cldr
from ape_model.training.text_tower.teacher import Teacher
from ape_model.weights.state_dict import save_weights
from ape_model.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ape_model.training.text_tower.distillation import DistilConfig

__all__ = ["train_tower"]


def train_tower(
    teacher: Path, cldr: Path, out: Path, config: DistilConfig, report: Callable[[str], None]
) -> None:
    """Distil a tower, check it as it will be read (in float16), and write it.

    Args:
        teacher: Folder of the sentence encoder.
        cldr: File of names and keywords.
        out: File to write, for the key `text` of a recipe.
        config: The recipe.
        report: Called with lines of progress.

    Raises:
        ModelMissingError: the teacher is not in the folder.
        TrainingError: sentence-transformers is not installed.
        DataError: the names cannot be read, or none of them is in the drawn world.
        TextTowerError: the tower does not distinguish names; nothing is written.
        CheckpointError: the teacher cannot be read, or the file cannot be written.
    """
    names = read_cldr(cldr)
    drawn = _drawn(names)
    encoder = Teacher(teacher)
    report(f"{cldr}: {len(names)} names, {len(drawn)} of them in the drawn world")
    corpus = build_corpus(names, encoder, config, NANO.text, drawn)
    report(f"{len(corpus.texts)} texts encoded by the teacher")
    tower = distil(
        corpus, config, NANO.text, lambda step, loss: report(f"step {step}: loss {loss:.3f}")
    )
    # Rounding is part of what is checked: the file holds float16.
    halves = {key: value.half() for key, value in tower.state_dict().items()}
    tower.load_state_dict(halves)
    encode = NanoTextEncoder(tower, corpus.words).encode
    diversity = measure_diversity(encode([name.casefold() for name in World().names]))
    report(f"text tower: {diversity}")
    check_diversity(diversity)
    save_weights(out, halves, {}, {"words": json.dumps(corpus.words, ensure_ascii=False)})
    report(f"wrote {out}; train on it with text = {str(out)!r} in a recipe")


def _drawn(names: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the things of the world that CLDR names: half of the sentences are about them."""
    world = World()
    known = {word.casefold() for name, words in names.items() for word in (name, *words)}
    drawn = [n.casefold() for n in world.names[: world.things] if n.casefold() in known]
    if not drawn:
        raise DataError("no name is a thing of the drawn world: give CLDR's annotations/en.xml")
    return drawn
