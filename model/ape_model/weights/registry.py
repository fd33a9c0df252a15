"""Where models are stored and what they are called.

    $XDG_DATA_HOME/ape_stream/models/<name>/{vision,text}.safetensors   imported ones
    ape_model/assets                                                    those that ship

`find_model` turns what a user gives, a name or a path, into the files of a model.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ape_model.config import NANO, PRESETS
from ape_model.errors import CheckpointError, ModelMissingError, VariantError
from ape_model.io.read_errors import read_errors
from ape_model.io.safetensors_io import read_metadata
from ape_model.weights.built_in import ASSETS, BUILT_IN, DEFAULT, TEXT, TEXT_DIGEST
from ape_model.weights.import_official import FORMAT, TEXT_FILE, VISION_FILE
from ape_model.world.words import load_vocabulary
from ape_stream.values.texts import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "DEFAULT",
    "ModelFiles",
    "ModelState",
    "check_name",
    "drawn_stuff",
    "find_model",
    "list_models",
    "models_root",
]

_OFFICIAL_NAMES: Final = "official_vocabulary.json"
_OFFICIAL_KNOWS: Final = "photographs, open vocabulary"
_VARIANT: Final = NANO.ape.name
"""Variant of the models that ship."""
_CANVAS: Final = (32, 4096)
"""Least and largest long side that a header may name, pixels."""
_LONGEST_NAME: Final = 200
"""Bytes; file systems allow 255, and unfinished imports carry the name with a suffix."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is on this machine."""

    name: str
    """What the user calls it."""
    variant: str
    """Its preset: a key of `PRESETS`, or "nano"."""
    vision: Path
    """The network's weights."""
    text: Path | None
    """The text tower's weights; None where they were left out, and a bank must do."""
    text_tower: str
    """Kind of the text tower: a key of `TEXT_TOWERS`, or "nano"."""
    text_digest: str
    """SHA-256 (hex) of the text tower that belongs to the network, here or not."""
    vocabulary: frozenset[str]
    """Clean texts of the names that the network learnt as names, not as sentences."""
    stuff: frozenset[str] = frozenset()
    """Clean texts of the names that it learnt as stuff, without those of the drawn world."""
    canvas: int | None = None
    """Long side of the images that it learnt from, pixels; None: that of its variant."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """One line of the list of models."""

    name: str
    """What the user calls it."""
    variant: str
    """Its preset."""
    state: str
    """"built in", "imported", "damaged" or "not here"."""
    vision_bytes: int | None
    """Size of the network's file, or None where there is none."""
    text_bytes: int | None
    """Size of the text tower's file, or None where there is none."""
    folder: str | None
    """Folder of the files, or None."""
    knows: str
    """What it was trained on, in few words; empty where that is not recorded."""


def models_root() -> Path:
    """Return where imported models are stored: `$XDG_DATA_HOME/ape_stream/models`, or under `~`."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "ape_stream" / "models"


def check_name(name: str) -> str:
    """Return `name` if a model may be called so.

    Raises:
        VariantError: it is empty, built in, or no plain file name.
    """
    # The name becomes a folder: no separators, and no leading dot, which hides it.
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not (plain.isalnum() and plain.isascii()) or name.startswith("."):
        raise VariantError(f"a model cannot be called {name!r}: use letters, digits, - _ and .")
    if len(name) > _LONGEST_NAME:
        raise VariantError(f"a model's name has at most {_LONGEST_NAME} letters, not {len(name)}")
    if name.casefold() in BUILT_IN:
        raise VariantError(f"{name.casefold()} is built in: choose another --name")
    return name


def find_model(model: str | Path) -> ModelFiles:
    """Find the files of a model.

    Args:
        model: "nano", "street", the name of an imported model, a folder with its files, or the path
            of its `vision.safetensors`.

    Raises:
        ModelMissingError: a known model is not here; the message names the command that gets it.
        VariantError: there is no such model.
        CheckpointError: its files cannot be read.
    """
    name = str(model)
    if name.casefold() in BUILT_IN:
        return _built_in(name.casefold())
    # An imported model wins over a folder of the same name here; "./name" means the folder.
    if os.sep not in name and (folder := _stored(name)) is not None:
        return _from_folder(folder.name, folder / VISION_FILE)
    try:
        path = Path(model).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # too long, not allowed, or "~nobody"
        reason = getattr(error, "strerror", None) or error
        raise VariantError(f"no model {name!r}: {reason}") from error
    if is_folder:
        return _from_folder(path.name, path / VISION_FILE)
    if is_file:
        return _from_folder(path.parent.name, path)
    raise _unknown(name)


def list_models() -> list[ModelState]:
    """Return every model that is known, here or not, the built-in ones first."""
    lines = [
        _line(name, _VARIANT, "built in", ASSETS / one.vision, ASSETS / TEXT, one.knows)
        for name, one in BUILT_IN.items()
    ]
    folders = _stored_folders()
    for folder in folders:
        vision = folder / VISION_FILE
        try:
            variant, state = read_metadata(vision).get("variant", "?"), "imported"
        except CheckpointError:
            variant, state = "?", "damaged"
        knows = _OFFICIAL_KNOWS if variant in PRESETS else ""
        lines.append(_line(folder.name, variant, state, vision, folder / TEXT_FILE, knows))
    # Official models are listed though they are not here, so that a user sees what can be pulled.
    absent = [name for name in PRESETS if name not in {folder.name for folder in folders}]
    return lines + [
        ModelState(name, name, "not here", None, None, None, _OFFICIAL_KNOWS) for name in absent
    ]


def _line(name: str, variant: str, state: str, vision: Path, text: Path, knows: str) -> ModelState:
    here = vision.is_file()
    return ModelState(
        name=name,
        variant=variant,
        state=state if here else "not here",
        vision_bytes=vision.stat().st_size if here else None,
        text_bytes=text.stat().st_size if text.is_file() else None,
        folder=str(vision.parent) if here else None,
        knows=knows,
    )


def _stored_folders() -> list[Path]:
    root = models_root()
    found = root.iterdir() if root.is_dir() else iter(())
    return sorted(folder for folder in found if (folder / VISION_FILE).is_file())


def _stored(name: str) -> Path | None:
    # Two names may differ in case alone: the exact one wins.
    folders = _stored_folders()
    exact = [folder for folder in folders if folder.name == name]
    loose = [folder for folder in folders if folder.name.casefold() == name.casefold()]
    return next(iter(exact + loose), None)


def _built_in(name: str) -> ModelFiles:
    one = BUILT_IN[name]
    vision, text = ASSETS / one.vision, ASSETS / TEXT
    if not vision.is_file():
        raise ModelMissingError(
            f"{vision.name} is missing from this installation: install ape-stream again"
        )
    stuff: frozenset[str] = frozenset()
    if one.names is None:
        label = read_metadata(vision)
        names, stuff = _learnt_names(label), _learnt_stuff(label)
    else:
        names = _read_names(ASSETS / one.names)
    return ModelFiles(
        name=name,
        variant=_VARIANT,
        vision=vision,
        text=text if text.is_file() else None,
        text_tower=NANO.ape.text_tower,
        text_digest=TEXT_DIGEST,
        vocabulary=names,
        stuff=stuff,
    )


def _from_folder(name: str, vision: Path) -> ModelFiles:
    label = read_metadata(vision)
    if label.get("format") != FORMAT or label.get("part") != "vision":
        raise CheckpointError(
            f"{vision} is of neither `ape-stream models import` nor `train`:"
            " import the checkpoint first"
        )
    text = vision.parent / TEXT_FILE
    has_text = text.is_file()
    with read_errors(vision, CheckpointError, "import the model again"):
        files = ModelFiles(
            name=name,
            variant=_known(label["variant"]),
            vision=vision,
            text=text if has_text else None,
            text_tower=label["text_tower"],
            text_digest=label["text_sha256"],
            vocabulary=_learnt_names(label),
            stuff=_learnt_stuff(label),
            canvas=_canvas(label),
        )
    # The header's digest is enough: hashing gigabytes would delay every start.
    if has_text and read_metadata(text).get("text_sha256") != files.text_digest:
        raise CheckpointError(f"{text} belongs to another model than {vision}: import it again")
    return files


def _known(variant: str) -> str:
    if variant != _VARIANT and variant not in PRESETS:
        raise ValueError(f"no variant {variant!r}")
    return variant


def _learnt_names(label: Mapping[str, str]) -> frozenset[str]:
    """Names of a model of our own trainer, from its header; else the official ones."""
    if "names" not in label:
        return _read_names(ASSETS / _OFFICIAL_NAMES)
    return _cleaned(json.loads(label["names"]))


def _learnt_stuff(label: Mapping[str, str]) -> frozenset[str]:
    return _cleaned(json.loads(label.get("stuff", "[]")))


def _canvas(label: Mapping[str, str]) -> int | None:
    if "canvas" not in label:
        return None
    side = int(label["canvas"])
    if not _CANVAS[0] <= side <= _CANVAS[1]:
        raise ValueError(f"a canvas of {side} pixels")
    return side


def _cleaned(names: Iterable[str]) -> frozenset[str]:
    return frozenset(clean_text(name) for name in names)


def _read_names(path: Path) -> frozenset[str]:
    with read_errors(path, CheckpointError, "install ape-stream again"):
        names: Iterable[str] = json.loads(path.read_text(encoding="utf-8"))
        return _cleaned(names)


def _unknown(name: str) -> ModelMissingError | VariantError:
    official = [variant for variant in PRESETS if variant.casefold() == name.casefold()]
    if official:
        return ModelMissingError(
            f"model {official[0]} is not here: `ape-stream models pull {official[0]}` fetches it"
        )
    known = ", ".join(line.name for line in list_models())
    return VariantError(f"no model and no folder {name!r}: choose one of {known}")


def drawn_stuff() -> frozenset[str]:
    """Clean texts of the drawn world's prompts that can only mean stuff."""
    words = load_vocabulary()
    only_stuff = (p.text for p in words.prompts if min(p.class_ids) >= words.things)
    return frozenset(clean_text(text) for text in only_stuff)
