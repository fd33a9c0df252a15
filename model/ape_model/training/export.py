"""From the averaged weights of a run to a model that `--model` takes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from ape_model.io.safetensors_io import read_safetensors
from ape_model.weights.import_official import FORMAT, TEXT_FILE, VISION_FILE
from ape_model.weights.state_dict import aliases_of, content_digest, save_weights

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from dataclasses import Field
    from pathlib import Path

    from torch import Tensor

    from ape_model.network.ape import Ape

__all__ = ["export", "export_model", "recipe_hash"]


def recipe_hash(recipe: object) -> str:
    """Return a short digest of a recipe (a dataclass), the same on every machine.

    Fields at their defaults do not count, so that a field that is added later changes the digest
    of no recipe before it.
    """
    text = json.dumps(_settings(recipe), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _settings(value: object) -> object:
    """Fields of a dataclass that differ from their defaults, in all that it holds."""
    if isinstance(value, list | tuple):
        return [_settings(one) for one in value]
    if not is_dataclass(value):
        return value
    given = {f.name: (getattr(value, f.name), _default(f)) for f in fields(value)}
    return {name: _settings(own) for name, (own, default) in given.items() if own != default}


def _default(field: Field[Any]) -> object:
    """A field's default; `MISSING`, which equals nothing else, where it has none."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def export(
    model: Ape, averaged: Mapping[str, Tensor], path: Path, facts: Mapping[str, object]
) -> None:
    """Write averaged weights as float16 safetensors.

    Args:
        model: The network that they belong to.
        averaged: Its averaged state.
        path: File to write.
        facts: Seed, steps, number of images and the like, for the header.

    Raises:
        CheckpointError: the file cannot be written.
    """
    # Counters of batch norms are integers and stay so.
    halves = {
        key: value.half() if value.is_floating_point() else value for key, value in averaged.items()
    }
    label = {key: str(value) for key, value in facts.items()}
    save_weights(path, halves, aliases_of(model), {"variant": model.config.name, **label})


def export_model(
    folder: Path,
    model: Ape,
    averaged: Mapping[str, Tensor],
    text: Path,
    names: Collection[str],
    stuff: Collection[str],
    facts: Mapping[str, object],
) -> Path:
    """Write a folder that `--model` and `--init` take: the network and its text tower.

    Args:
        folder: To write to; made if it does not exist.
        model: The network.
        averaged: Its averaged state.
        text: File of the text tower that it was trained with.
        names: Texts that it learnt as names, so that "traffic light" is not taken for a sentence.
        stuff: Those of them that mean stuff: all regions of one are shown as one.
        facts: Seed, steps, number of images and the like, for the header.

    Returns:
        The network's file.

    Raises:
        CheckpointError: a file cannot be read or written.
    """
    # The header repeats what `models import` writes, so that both kinds of folder read alike.
    tensors, label = read_safetensors(text)
    shared = {
        "format": FORMAT,
        "text_tower": model.config.name,
        "text_sha256": content_digest(tensors),
    }
    own = {"variant": model.config.name, "part": "text", "words": label["words"]}
    save_weights(folder / TEXT_FILE, tensors, {}, shared | own)
    learnt = {"names": _listed(names), "stuff": _listed(stuff), "part": "vision"}
    export(model, averaged, folder / VISION_FILE, {**facts, **shared, **learnt})
    return folder / VISION_FILE


def _listed(words: Collection[str]) -> str:
    """A JSON list, for the header."""
    return json.dumps(sorted(words), ensure_ascii=False)
