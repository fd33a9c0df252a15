"""Weights of a module to and from a safetensors file, strict both ways.

The format forbids two names for one tensor. Heads that official checkpoints hold under two names
are written once; the header's map of aliases brings the second name back.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Final

from ape_model.errors import CheckpointError
from ape_model.io.read_errors import read_errors
from ape_model.io.safetensors_io import raw_bytes, read_safetensors, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

__all__ = [
    "aliases_of",
    "content_digest",
    "is_recomputed",
    "load_weights",
    "mismatch",
    "save_weights",
]

# `rope`, `rope_win` and `rope_glb` hold tables; `criterion.<layer>.` holds buffers of losses.
_RECOMPUTED: Final = re.compile(r"(^|\.)rope(_win|_glb)?\.freqs_(cos|sin)$|(^|\.)criterion\.\d+\.")
_NAMED: Final = 3  # keys listed in an error message


def is_recomputed(key: str) -> bool:
    """Return whether a key of an official checkpoint is never read.

    Rope tables follow from the sizes, and the buffers of the training losses serve training alone.
    """
    return _RECOMPUTED.search(key) is not None


def aliases_of(module: nn.Module) -> dict[str, str]:
    """Return second names of parameters in the state_dict, each with the first name."""
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    # `keep_vars` gives the parameters themselves: equal ids are one parameter under two names.
    for key, value in module.state_dict(keep_vars=True).items():
        if not is_recomputed(key) and first.setdefault(id(value), key) != key:
            aliases[key] = first[id(value)]
    return aliases


def mismatch(
    have: Mapping[str, tuple[int, ...]], want: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Return in one line how two maps of key to shape differ, or None where they are equal."""
    other = [
        f"{key} {list(have[key])} and not {list(want[key])}"
        for key in want
        if key in have and have[key] != want[key]
    ]
    parts = (
        _count("missing", [key for key in want if key not in have]),
        _count("left over", [key for key in have if key not in want]),
        _count("of another shape", other),
    )
    return ", ".join(part for part in parts if part) or None


def _count(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = ", ..." if len(keys) > _NAMED else ""
    return f"{len(keys)} {what} ({', '.join(keys[:_NAMED])}{more})"


def content_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of names, dtypes, shapes and values, independent of the file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):  # files may hold tensors in any order
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def save_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    aliases: Mapping[str, str],
    metadata: Mapping[str, str],
) -> None:
    """Write tensors once each, on the CPU, whole file or none.

    Raises:
        CheckpointError: the file cannot be written.
    """
    kept = {
        key: tensor.detach().cpu()
        for key, tensor in tensors.items()
        if key not in aliases and not is_recomputed(key)
    }
    write_safetensors(path, kept, {**metadata, "aliases": json.dumps(dict(aliases))})


def load_weights(module: nn.Module, path: Path) -> dict[str, str]:
    """Fill every parameter and buffer of `module` from a file; return the file's metadata.

    Values are cast to the dtype and moved to the device that the module has.

    Raises:
        CheckpointError: the file cannot be read, or a key is missing, left over or of another
            shape.
    """
    tensors, metadata = read_safetensors(path)
    with read_errors(path, CheckpointError, "import the model again"):
        aliases: dict[str, str] = json.loads(metadata.get("aliases", "{}"))
        tensors |= {alias: tensors[key] for alias, key in aliases.items()}
    state = module.state_dict()
    wrong = mismatch(_shapes(tensors.items()), _shapes(state.items()))
    if wrong is not None:
        raise CheckpointError(f"{path} does not fit the model: {wrong}")
    # Not strict only for what is recomputed; `mismatch` has compared all other keys.
    module.load_state_dict(tensors, strict=False)
    return metadata


def _shapes(items: Iterable[tuple[str, Tensor]]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in items if not is_recomputed(key)}
