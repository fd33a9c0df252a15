"""Reads PyTorch checkpoints of unknown origin without running anything in them.

A pickle may name any function and have it called. `torch.load(weights_only=True)` knows a short
list of harmless ones and refuses the rest; what it refuses is named here and never loaded. Tensors
are memory-mapped. The zip archive keeps a CRC-32 of each record, which torch ignores: it is checked
here, so that a flipped bit is an error and not a slightly different network.
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
from ape_model.io.read_errors import read_errors

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["file_digest", "read_checkpoint"]

# Training loops log NumPy scalars, which are plain numbers and cannot run anything. A pickle of one
# calls NumPy's `scalar`, whose module was renamed in NumPy 2, with a dtype and encoded bytes.
_REBUILD_SCALAR: Final = np.float64(0).__reduce__()[0]
_NUMPY_SCALARS: Final[list[Any]] = [
    np.dtype,
    *{type(np.dtype(code)) for code in ("f2", "f4", "f8", "i4", "i8", "u1", "?")},
    (_REBUILD_SCALAR, "numpy.core.multiarray.scalar"),
    (_REBUILD_SCALAR, "numpy._core.multiarray.scalar"),
    (codecs.encode, "_codecs.encode"),
]
_ZIP_START: Final = b"PK"
_BLOCK: Final = 1 << 24  # bytes hashed at once
_ADVICE: Final = "fetch it again"


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file.

    Raises:
        CheckpointError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with read_errors(path, CheckpointError, _ADVICE), path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_checkpoint(path: Path) -> object:
    """Return what `torch.save` wrote, tensors memory-mapped on the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, not of `torch.save`, or names
            something that could run code.
    """
    with read_errors(path, CheckpointError, _ADVICE), safe_globals(_NUMPY_SCALARS):
        _check_archive(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(_refusal(path, error)) from error


def _check_archive(path: Path) -> None:
    """Check the frame around the pickle: a zip archive of stored records with right checksums."""
    with path.open("rb") as file:
        start = file.read(len(_ZIP_START))
    if start != _ZIP_START:
        raise CheckpointError(
            f"{path} is not a checkpoint of torch.save (1.6 or later): name the model_final.pth"
            " of a released model"
        )
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated: {_ADVICE}")
    with zipfile.ZipFile(path) as archive:
        # torch.save never compresses; a few kilobytes that unpack to terabytes are no checkpoint.
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise CheckpointError(f"{path} is damaged (a record is compressed): {_ADVICE}")
        wrong = archive.testzip()  # reads every record once: the first with a wrong CRC-32
    if wrong is not None:
        raise CheckpointError(f"{path} is damaged (checksum of {wrong!r}): {_ADVICE}")


def _refusal(path: Path, error: Exception) -> str:
    # Lists names by reading the pickle's opcodes; nothing is imported.
    found = get_unsafe_globals_in_checkpoint(path)
    if found:
        return f"{path} asks to run {', '.join(sorted(found))}: it is not loaded"
    return f"{path} is not loaded: {str(error).partition(chr(10))[0]}"
