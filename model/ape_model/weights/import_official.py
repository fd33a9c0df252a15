"""Official training checkpoints to our two files, one for vision and one for text.

    model_final.pth  {"model": weights, "trainer": optimizer, ...}
      -> <folder>/vision.safetensors   runs on every frame
      -> <folder>/text.safetensors     runs once per prompt; not needed with an embedding file

Keys and shapes must be exactly those of the variant's modules. Optimizer, rope tables and the
buffers of the training losses are dropped, and reported.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from ape_model.config import PRESETS
from ape_model.errors import CheckpointError, VariantError
from ape_model.io.checkpoint_reader import file_digest, read_checkpoint
from ape_model.network.ape import OFFICIAL_PREFIX, Ape
from ape_model.text.clip_tower import TEXT_TOWERS, TextTower
from ape_model.weights.state_dict import (
    aliases_of,
    content_digest,
    is_recomputed,
    mismatch,
    save_weights,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

__all__ = [
    "FORMAT",
    "TEXT_FILE",
    "VISION_FILE",
    "ImportReport",
    "Layout",
    "PartReport",
    "check_target",
    "import_checkpoint",
]

FORMAT: Final = "ape-stream-weights 1"
"""The metadata's `format` of every file written here."""
VISION_FILE: Final = "vision.safetensors"
"""Name of the network's file in a model's folder."""
TEXT_FILE: Final = "text.safetensors"
"""Name of the text tower's file in a model's folder."""
_TEXT_PREFIX: Final = f"{OFFICIAL_PREFIX}model_language."

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys and shapes of a variant, without the official prefixes."""

    vision: Shapes
    """Of the network."""
    text: Shapes
    """Of the text tower."""
    aliases: dict[str, str]
    """Second names of the network's shared parameters, with the name that is kept."""
    text_tower: str
    """Name of the text tower in `TEXT_TOWERS`."""

    @classmethod
    @cache
    def of(cls, variant: str) -> Layout:
        """Return the layout of an official variant, from modules that hold no memory.

        Raises:
            VariantError: there is no such variant.
        """
        if variant not in PRESETS:
            raise VariantError(f"no variant {variant!r}: choose one of {', '.join(PRESETS)}")
        config = PRESETS[variant]
        with torch.device("meta"):  # shapes without memory or initial values
            network, tower = Ape(config), TextTower(TEXT_TOWERS[config.text_tower])
        return cls(_shapes(network), _shapes(tower), aliases_of(network), config.text_tower)

    @property
    def official(self) -> Shapes:
        """The keys as an official checkpoint has them."""
        return {OFFICIAL_PREFIX + key: shape for key, shape in self.vision.items()} | {
            _TEXT_PREFIX + key: shape for key, shape in self.text.items()
        }


@dataclass(frozen=True, slots=True)
class PartReport:
    """One of the two files."""

    file: str
    """Its path."""
    tensors: int
    """Tensors written."""
    parameters: int
    """Numbers in them."""
    bytes: int
    """Their size without the header."""
    dtypes: dict[str, int]
    """How many tensors have which dtype."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import has read, written and left out."""

    variant: str
    """Official variant."""
    origin: str
    """Name of the file that was read."""
    origin_sha256: str
    """Its SHA-256, hex."""
    vision: PartReport
    """The network."""
    text: PartReport
    """The text tower."""
    aliases: int
    """Keys that are second names of others."""
    ignored: int
    """Keys that are recomputed or serve training alone."""
    dropped: tuple[str, ...]
    """Top-level entries of the checkpoint that are no weights."""

    def as_json(self) -> dict[str, Any]:
        """Return the report as what `json.dumps` takes."""
        return asdict(self)


def import_checkpoint(
    path: Path, variant: str, folder: Path, *, layout: Layout | None = None, replace: bool = False
) -> ImportReport:
    """Read an official checkpoint and write a model's folder, all of it or nothing.

    Args:
        path: `model_final.pth` of a released model.
        variant: Which of the released models it is.
        folder: For the two files; must hold no model yet, unless `replace`.
        layout: Keys and shapes to expect; None for those of the variant.
        replace: Replace the files in `folder`.

    Raises:
        VariantError: there is no such variant.
        CheckpointError: the file cannot be read safely or does not fit, or the folder holds a
            model or cannot be written.
    """
    check_target(folder, replace=replace)
    layout = layout or Layout.of(variant)
    state, dropped = _read_state(path)
    # Nothing is written before every key, shape and alias has been checked.
    used = {key: value for key, value in state.items() if not is_recomputed(key)}
    _check(path, variant, used, layout)
    vision, text = _split(used)
    origin = {"origin": path.name, "origin_sha256": file_digest(path)}
    shared = {"format": FORMAT, "variant": variant, "text_tower": layout.text_tower, **origin}
    # In both files: it connects cached prompts with the network, also where the tower is not here.
    shared["text_sha256"] = content_digest(text)
    with _all_or_nothing(folder) as part:
        save_weights(part / VISION_FILE, vision, layout.aliases, {**shared, "part": "vision"})
        save_weights(part / TEXT_FILE, text, {}, {**shared, "part": "text"})
    # The report counts what was written: a parameter with two names is one tensor.
    kept = {key: value for key, value in vision.items() if key not in layout.aliases}
    return ImportReport(
        variant=variant,
        **origin,
        vision=_describe(folder / VISION_FILE, kept),
        text=_describe(folder / TEXT_FILE, text),
        aliases=len(layout.aliases),
        ignored=len(state) - len(used),
        dropped=dropped,
    )


def check_target(folder: Path, *, replace: bool) -> None:
    """Refuse a folder that holds a model already.

    Raises:
        CheckpointError: it does, and `replace` is False; or it cannot be a folder.
    """
    try:
        is_taken = (folder / VISION_FILE).exists()
    except OSError as error:  # such as a name of over 255 bytes
        raise CheckpointError(f"{folder} cannot be used: {error.strerror}") from error
    if is_taken and not replace:
        raise CheckpointError(
            f"{folder} holds a model: --force replaces it, or choose another name"
        )


def _shapes(module: nn.Module) -> Shapes:
    state = module.state_dict()
    return {key: tuple(value.shape) for key, value in state.items() if not is_recomputed(key)}


def _read_state(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the weights under their official names, and the names of the file's other entries."""
    content = read_checkpoint(path)
    dropped: tuple[str, ...] = ()
    # Trainers save {"model": weights, "trainer": ...}; a file of weights alone is taken as well.
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        dropped = tuple(sorted(str(key) for key in content if key != "model"))
        content = content["model"]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds no weights: name the model_final.pth of a release")
    other = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise CheckpointError(f"{path} holds {other[0]!r} where weights should be")
    # DistributedDataParallel puts "module." before every key.
    return {str(key).removeprefix("module."): value for key, value in content.items()}, dropped


def _check(path: Path, variant: str, state: Mapping[str, Tensor], layout: Layout) -> None:
    have = {key: tuple(value.shape) for key, value in state.items()}
    wrong = mismatch(have, layout.official)
    if wrong is not None:
        # A wrong --variant is the likely mistake: say which one fits.
        fits = [name for name in PRESETS if mismatch(have, Layout.of(name).official) is None]
        hint = f"; it is variant {' or '.join(fits)}: use --variant {fits[0]}" if fits else ""
        raise CheckpointError(f"{path} does not fit variant {variant}: {wrong}{hint}")
    for alias, kept in layout.aliases.items():
        if not torch.equal(state[OFFICIAL_PREFIX + alias], state[OFFICIAL_PREFIX + kept]):
            raise CheckpointError(f"{path} is damaged: {alias} and {kept} must be equal and differ")


def _split(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    # The text's prefix begins with the network's own, so it is asked first.
    vision, text = {}, {}
    for key, value in state.items():
        if key.startswith(_TEXT_PREFIX):
            text[key.removeprefix(_TEXT_PREFIX)] = value
        else:
            vision[key.removeprefix(OFFICIAL_PREFIX)] = value
    return vision, text


def _describe(file: Path, tensors: Mapping[str, Tensor]) -> PartReport:
    dtypes = Counter(str(value.dtype).removeprefix("torch.") for value in tensors.values())
    return PartReport(
        file=str(file),
        tensors=len(tensors),
        parameters=sum(value.numel() for value in tensors.values()),
        bytes=sum(value.nbytes for value in tensors.values()),
        dtypes=dict(dtypes),
    )


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; its files move to `folder` if the body succeeds, and only then."""
    part: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder: a move to another file system would be a copy, which can break off.
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        yield part
        folder.mkdir(exist_ok=True)
        # The text's file moves first: a folder counts as a model once its vision file is there.
        for file in sorted(part.iterdir()):
            file.replace(folder / file.name)
    except (OSError, ValueError) as error:  # pathlib answers a null character with ValueError
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{str(folder)!r} cannot be written: {reason}") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
