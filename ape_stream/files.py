"""Output files: written under a temporary name, locked, and renamed when they are whole.

It also distinguishes input files that are too large to be read as a whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ape_stream.errors import ConfigError, SinkError, TruncatedError, reason_of

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "PART",
    "PartFile",
    "file_name",
    "held",
    "is_whole",
    "refuse_running",
    "refuse_unwritable",
    "sampled_digest",
    "written",
]

PART = ".part"
"""Added to the name of what is not whole yet."""
_SAMPLE = 1 << 16
"""Bytes read at the head, the middle and the end of a file for its digest."""
_UNSAFE = re.compile(r"[^\w.-]+")
# Systems allow 255 bytes for a name; a suffix and `.part` are added to this.
_NAME_BYTES = 200


def file_name(stream: str) -> str:
    """The name of a stream as one part of a path: it may be a path itself, or come from anyone."""
    # No dot at the ends: neither a hidden file nor "..".
    name = _UNSAFE.sub("-", stream).strip("-.") or "stream"
    return name.encode()[:_NAME_BYTES].decode(errors="ignore")


def is_whole(error: BaseException | None) -> bool:
    """Whether an output is complete that is closed with this error.

    A source that broke off was still processed to its last readable frame.
    """
    return error is None or isinstance(error, TruncatedError)


@contextmanager
def written(path: str | Path) -> Iterator[None]:
    """Turn the operating system's refusals into a `SinkError` that names the file."""
    try:
        yield
    except OSError as error:
        raise SinkError(f"cannot write {path}: {reason_of(error)}") from error
    except ValueError as error:  # a NUL in the name
        raise SinkError(f"cannot write {str(path)!r}: {error}") from error


class PartFile:
    """A file that is written as `<name>.part` and gets its name when it is whole.

    What was there under the name before stays until then. A lock on the part keeps a second
    process out. Devices and pipes (`/dev/stdout`) are written directly.

    Args:
        path: The file in the end.
        overwrite: Replace an older file, or an older part, of this name.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self.overwrite = overwrite
        self._lock: int | None = None  # descriptor of the locked part
        with written(path):
            self.direct = _is_special(self.path)
        self.part = self.path if self.direct else Path(f"{self.path}{PART}")

    @property
    def files(self) -> tuple[Path, ...]:
        """Every name that is written under."""
        return (self.path,) if self.direct else (self.path, self.part)

    def refuse_loss(self) -> None:
        """Refuse to write where something would be lost.

        Raises:
            ConfigError: the file exists, a part of an earlier run does, or another process is
                writing it.
            SinkError: a folder has this name.
        """
        if self.direct:
            return
        with written(self.path):
            if self.path.is_dir():
                raise SinkError(f"cannot write {self.path}: it is a folder")
            if not self.overwrite and self.path.exists():
                raise ConfigError(
                    f"{self.path} exists already: give another name, or replace it with"
                    " overwrite=True"
                )
            size = self.part.stat().st_size if self.part.exists() else 0
        refuse_unwritable(self.path)
        if size and not self.overwrite:
            # Not with the lock in hand: a second descriptor would find the file locked, by us.
            if self._lock is None:
                refuse_running(self.part)
            raise ConfigError(
                f"{self.part} is left from a run that was cut short: `ape-stream recover"
                f" {self.part}` makes a whole file of it, overwrite=True throws it away"
            )

    def open(self) -> None:
        """Make the folders above, lock the part and empty it.

        Raises:
            ConfigError: as `refuse_loss`.
            SinkError: the file cannot be made.
        """
        self.refuse_loss()
        if self.direct:
            return
        with written(self.part):
            self.part.parent.mkdir(parents=True, exist_ok=True)
            # Emptied only under the lock: until then the part may be that of another run.
            self._lock = _locked(self.part, create=True)
            try:
                self.refuse_loss()  # the process that held the lock may have finished meanwhile
                os.ftruncate(self._lock, 0)
            except BaseException:
                self._unlock()
                raise

    def stream(self, mode: str) -> IO[Any]:
        """A handle to write with, into the part that `open` made."""
        with written(self.part):
            return self.part.open(mode, encoding=None if "b" in mode else "utf-8")

    def close(self, *, whole: bool) -> None:
        """Give the file its name if it is whole; leave the part, if anything is in it, if not.

        Raises:
            SinkError: it cannot be renamed.
        """
        if self._lock is None:
            return
        try:
            with written(self.path):
                if self.part.exists():
                    if whole:
                        # Atomic: at any moment the old file or the new one is there.
                        self.part.replace(self.path)
                    elif not self.part.stat().st_size:
                        self.part.unlink()
        finally:
            self._unlock()

    @contextmanager
    def finishing(self, *, whole: bool) -> Iterator[None]:
        """Close after the block; one that fails leaves the part."""
        try:
            yield
        except BaseException:
            whole = False
            raise
        finally:
            self.close(whole=whole)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _is_special(path: Path) -> bool:
    """Whether a path is a device, a pipe or a socket."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _locked(path: Path, *, create: bool) -> int:
    """Open a file and lock it for this process; the lock ends when the descriptor is closed.

    Raises:
        ConfigError: another process has the lock.
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
    try:
        _lock(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(path: Path, descriptor: int) -> None:
    if sys.platform == "win32":
        return
    # Some network file systems have no locks: their users are trusted to name outputs apart.
    unsupported = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(
            f"{path} is being written by another run: wait for it, or give another name"
        ) from error
    except OSError as error:
        if error.errno not in unsupported:
            raise
    # A process that finished in between has renamed the file that was opened here.
    if not os.path.samestat(os.fstat(descriptor), path.stat()):
        raise ConfigError(f"{path} has just been written by another run")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Lock an existing part while it is read, so that no run still writes it.

    Raises:
        ConfigError: a run is writing it.
        SinkError: it cannot be opened.
    """
    with written(path):
        descriptor = _locked(path, create=False)
    try:
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)


def refuse_unwritable(path: Path) -> None:
    """Refuse a file or folder where nothing can be made; folders above need not exist yet.

    Raises:
        SinkError: the nearest folder above that exists takes no files.
    """
    with written(path):
        above = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        # Permissions alone do not say it: file systems may be read-only, full, or not real.
        with tempfile.TemporaryFile(dir=above):
            return
    except OSError as error:
        raise SinkError(
            f"cannot write {path}: {above} takes no files ({reason_of(error)}): name another folder"
        ) from error


def refuse_running(part: Path) -> None:
    """Refuse a part that another run is writing now.

    Raises:
        ConfigError: one is.
    """
    if part.is_file():
        with held(part):
            return


def sampled_digest(files: Iterable[Path], folder: Path | None = None) -> str:
    """SHA-256 (hex) over the names, sizes and samples of files.

    Samples are the first, middle and last 64 KiB: a shelf of videos is not read as a whole before
    the work begins. A file that cannot be read has its name alone.

    Args:
        files: The files, in order.
        folder: What their names count from; None takes the bare names.
    """
    digest = hashlib.sha256()
    for path in files:
        shown = path.name if folder is None else os.path.relpath(path.absolute(), folder)
        digest.update(f"{shown}\0".encode(errors="surrogateescape"))
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                digest.update(f"{size}\0".encode())
                for at in sorted({0, max(0, (size - _SAMPLE) // 2), max(0, size - _SAMPLE)}):
                    file.seek(at)
                    digest.update(file.read(_SAMPLE))
        except OSError:
            digest.update(b"unreadable\0")
    return digest.hexdigest()
