"""Prompt embeddings on disk: one small file per prompt, shared by runs and processes.

    <root>/<first two hex digits of key>/<key>.safetensors

A file is written under a temporary name and renamed, so that a reader sees all of it or nothing,
without a lock. Two processes that encode the same prompt write the same content. A file holds the
SHA-256 of its vector: one that a crash or a bad disk has damaged is noticed, and replaced.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["CachedPrompt", "EmbeddingCache", "EmbeddingSpace", "cache_root"]

_FORMAT: Final = "1"  # part of every key: another format never reads these files
_LIMIT: Final = 65_536
"""Files that are kept."""
_log = logging.getLogger(__name__)


def cache_root() -> Path:
    """Return the folder of embeddings: `$XDG_CACHE_HOME/ape_stream/prompts`, or `~/.cache/...`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ape_stream" / "prompts"


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """Everything except the text that decides an embedding."""

    tower: str
    """SHA-256 (hex) of the text tower's weights."""
    dtype: str
    """Arithmetic of the tower: "float32", "float16" or "bfloat16"."""
    pooling: str
    """How word states became one vector: "eot" or "mean"."""

    def key(self, text: str) -> str:
        """Return the name (64 hex digits) of the embedding of a clean text."""
        parts = (_FORMAT, self.tower, self.dtype, self.pooling, text)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class CachedPrompt:
    """The metadata of a file."""

    text: str
    """The clean text."""
    space: EmbeddingSpace
    """What encoded it."""


class EmbeddingCache:
    """A folder of embeddings of bounded size.

    Args:
        root: The folder; made when first written to.
        limit: Number of files kept, about 8 KB of disk each (65,536: at most 512 MB). When there
            are more, those used longest ago are removed.
    """

    def __init__(self, root: Path, limit: int = _LIMIT) -> None:
        self.root = root
        self.limit = limit
        self._writable = True

    def get(self, space: EmbeddingSpace, text: str) -> Tensor | None:
        """Return the (D,) float32 embedding of a clean text, or None if it is not cached.

        A damaged file counts as not cached; a warning names it.
        """
        path = self._path(space, text)
        try:
            vector = _read(path, space, text)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError) as error:
            _log.warning("the cached prompt %s is damaged (%s): encoding it again", path, error)
            return None
        # The time of change is the time of last use, by which `prune` sorts: many file systems do
        # not keep access times.
        with suppress(OSError):  # a read-only cache is still of use
            os.utime(path)
        return vector

    def put(self, space: EmbeddingSpace, text: str, vector: Tensor) -> None:
        """Store the (D,) float32 embedding of a clean text.

        If the disk is full or write-protected, one warning is logged and nothing is stored.
        """
        if not self._writable:
            return
        try:
            _write(self._path(space, text), space, text, vector)
        except OSError as error:
            self._writable = False  # one warning, not one for each prompt
            _log.warning("prompts are not cached, %s cannot be written: %s", self.root, error)

    def prune(self) -> int:
        """Remove the files used longest ago, down to the limit; return how many were removed."""
        aged = []
        for path in self._files():
            with suppress(FileNotFoundError):  # another process has removed it
                aged.append((path.stat().st_mtime_ns, path))
        oldest = sorted(aged)[: max(0, len(aged) - self.limit)]
        for _, path in oldest:
            with suppress(OSError):
                path.unlink()
        return len(oldest)

    def __iter__(self) -> Iterator[CachedPrompt]:
        """Yield what is cached, sorted by text; damaged files are left out."""
        labels = []
        for path in self._files():
            with suppress(OSError, SafetensorError, KeyError, TypeError):
                labels.append(_label(path))
        yield from sorted(labels, key=lambda label: label.text)

    def _files(self) -> Iterator[Path]:
        return self.root.glob("??/*.safetensors")

    def _path(self, space: EmbeddingSpace, text: str) -> Path:
        key = space.key(text)
        return self.root / key[:2] / f"{key}.safetensors"


def _digest(vector: Tensor) -> str:
    return hashlib.sha256(vector.numpy().tobytes()).hexdigest()


def _label(path: Path) -> CachedPrompt:
    with safe_open(path, "pt") as file:
        label = file.metadata()
    space = EmbeddingSpace(label["tower"], label["dtype"], label["pooling"])
    return CachedPrompt(label["text"], space)


def _read(path: Path, space: EmbeddingSpace, text: str) -> Tensor:
    with safe_open(path, "pt") as file:
        vector: Tensor = file.get_tensor("embedding")
        label = file.metadata() or {}
    if vector.dtype != torch.float32 or vector.ndim != 1:
        raise ValueError(f"holds {tuple(vector.shape)} {vector.dtype}")
    # Compares the checksum, and that the file under this key is of this text and tower.
    if label != _metadata(space, text, vector):
        raise ValueError("its metadata does not match its content")
    return vector


def _metadata(space: EmbeddingSpace, text: str, vector: Tensor) -> dict[str, str]:
    return {
        "format": _FORMAT,
        "tower": space.tower,
        "dtype": space.dtype,
        "pooling": space.pooling,
        "text": text,
        "sha256": _digest(vector),
    }


def _write(path: Path, space: EmbeddingSpace, text: str, vector: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save({"embedding": vector}, metadata=_metadata(space, text, vector))
    # No fsync: ten thousand of them take minutes, and a torn file is noticed by its checksum.
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(part).replace(path)
    except BaseException:  # also an interruption must leave no part behind
        Path(part).unlink(missing_ok=True)
        raise
