"""Safetensors files: written whole or not at all, read with errors that say what to do.

The format (huggingface/safetensors, README "Format"): eight bytes of little-endian header length,
a JSON header with dtype, shape and offsets of every tensor and a map of strings, then the data
without holes. Our writer goes tensor by tensor, so that a model of gigabytes is copied from a
memory-mapped file without ever being in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from safetensors import safe_open

from ape_model.errors import CheckpointError
from ape_model.io.read_errors import read_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["raw_bytes", "read_metadata", "read_safetensors", "write_safetensors"]

_NAMES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT: Final = 8  # bytes; the format asks for data that starts at a multiple of it
_ADVICE: Final = "import the model again"


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a file so that `path` is the old file or the complete new one at every moment.

    Args:
        path: Where to; missing folders are made.
        tensors: Any strides, on the CPU.
        metadata: Strings for the header.

    Raises:
        CheckpointError: the folder cannot be written, or the disk is or becomes full; nothing new
            is left there then.
    """
    # Wide dtypes first: every tensor then starts at a multiple of its own item size.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header = _header(path, names, tensors, metadata)
    size = len(header) + sum(tensors[name].nbytes for name in names)
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_space(path, size)  # before gigabytes are written in vain
        handle, named = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        part = Path(named)
        with os.fdopen(handle, "wb") as file:
            file.write(header)
            for name in names:
                file.write(raw_bytes(tensors[name]))
            file.flush()
            os.fsync(file.fileno())  # else a power cut after the rename may leave an empty file
        part.chmod(0o644)  # mkstemp's 0600 would shut out the other users of a shared model
        part.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} ({_megabytes(size)}) cannot be written: {error.strerror or error}"
        ) from error
    except ValueError as error:  # pathlib's answer to a null character
        raise CheckpointError(f"{str(path)!r} cannot be written: {error}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the values of a CPU tensor as row-major bytes, copied only where strides ask."""
    if not tensor.numel():
        return memoryview(b"")
    # A single value may have stride 0 and count as contiguous all the same.
    flat = tensor.contiguous().as_strided((tensor.numel(),), (1,))
    return flat.view(torch.uint8).numpy().data


def read_metadata(path: Path) -> dict[str, str]:
    """Return the strings in the header of a file, without reading its tensors.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with read_errors(path, CheckpointError, _ADVICE), safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors (memory-mapped, on the CPU) and the metadata of a file.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with read_errors(path, CheckpointError, _ADVICE), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        return tensors, dict(file.metadata() or {})


def _header(
    path: Path, names: list[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise CheckpointError(f"{path} cannot be written: {name} is {tensor.dtype}")
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(entries, ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)  # the eight bytes of length keep the alignment
    return len(text).to_bytes(8, "little") + text


def _check_space(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise CheckpointError(
            f"{path} needs {_megabytes(size)} and the disk has {_megabytes(free)} left:"
            " free some, or choose another folder with --output"
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
