"""Files of compiled kernels, named by a hash of everything that made them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

__all__ = ["directory", "file_for", "keep"]


def directory() -> Path:
    """`$APE_STREAM_CACHE`, else `ape_stream` in the user's cache folder; may not exist yet."""
    chosen = os.environ.get("APE_STREAM_CACHE")
    if chosen:
        return Path(chosen) / "kernels"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ape_stream" / "kernels"


def file_for(stem: str, suffix: str, *parts: str) -> Path:
    """The file for what is made from `parts`: source, compiler, flags, target."""
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    return directory() / f"{stem}-{key}{suffix}"


def keep(path: Path, content: bytes) -> None:
    """Write `content`; another process sees the whole file or no file.

    Raises:
        OSError: the folder cannot be written.
    """
    # Code of this folder is loaded into the process: nobody else may write it.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # In the same folder: only within one file system does `replace` happen in one step.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
