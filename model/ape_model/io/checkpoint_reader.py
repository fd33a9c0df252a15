"""Reads PyTorch's pickles from strangers without running anything in them.

A pickle may name any function and have it called. `torch.load(weights_only=True)` knows a short
list of harmless ones and refuses the rest; what it refuses is named here and never loaded. The file
is memory-mapped: an optimizer state that nobody asks for is not read either.
"""

from __future__ import annotations

import codecs
import hashlib
import pickle
import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ape_model.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["file_digest", "read_pickle"]

# Training loops log NumPy scalars, which are plain numbers and cannot run anything.
_REBUILD_SCALAR: Final = np.float64(0).__reduce__()[0]
_NUMPY_SCALARS: Final[list[Any]] = [
    np.dtype,
    *{type(np.dtype(code)) for code in ("f2", "f4", "f8", "i4", "i8", "u1", "?")},
    (_REBUILD_SCALAR, "numpy.core.multiarray.scalar"),
    (_REBUILD_SCALAR, "numpy._core.multiarray.scalar"),
    (codecs.encode, "_codecs.encode"),
]
_ZIP_START: Final = b"PK"
_BLOCK: Final = 1 << 24


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file.

    Raises:
        CheckpointError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def read_pickle(path: Path) -> object:
    """Return what `torch.save` wrote, tensors memory-mapped on the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, not of `torch.save`, or names something
            that could run code.
    """
    _check_zip(path)
    try:
        with safe_globals(_NUMPY_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, error)) from error
    except (OSError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} is damaged ({reason}): fetch it again") from error


def _check_zip(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_ZIP_START))
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder: name the .pth file in it") from None
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if start != _ZIP_START:
        raise CheckpointError(
            f"{path} is not a checkpoint of torch.save (1.6 or later): name the model_final.pth"
            " of a released model"
        )
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated: fetch it again")


def _refusal(path: Path, error: Exception) -> str:
    with safe_globals(_NUMPY_SCALARS):
        found = get_unsafe_globals_in_checkpoint(path)
    if found:
        return f"{path} asks to run {', '.join(sorted(found))}: it is not loaded"
    return f"{path} is not loaded: {str(error).partition(chr(10))[0]}"
