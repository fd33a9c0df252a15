"""Every error that a reader raises on a damaged file, as one error in one line."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ape_model.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["read_errors"]


@contextmanager
def read_errors(path: Path, kind: type[ModelError], advice: str) -> Iterator[None]:
    """Turn every error of the body into one line of `kind`; errors of this package pass unchanged.

    Readers of pickles, zip archives, JSON and safetensors raise nearly anything on damaged bytes:
    IndexError, TypeError, UnicodeDecodeError, RecursionError, BadZipFile ... A list of them was
    incomplete whenever more files were tried, so that only this function catches `Exception`.
    Keep the body small: a mistake of our own in it would be reported as a damaged file.

    Args:
        path: The file that is read.
        kind: The error to raise.
        advice: What the user can do about a damaged file.

    Raises:
        ModelError: of `kind`, where the body raised; the cause is kept.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise kind(_describe(path, error, advice)) from error


def _describe(path: Path, error: Exception, advice: str) -> str:
    if "\0" in str(path):
        return f"{str(path)!r} cannot be the name of a file: it holds a null character"
    if isinstance(error, FileNotFoundError):
        return f"there is no file {path}"
    try:
        if path.is_dir():
            return f"{path} is a folder, not a file"
    except OSError:  # such as a name of over 255 bytes
        pass
    if isinstance(error, OSError) and error.strerror:
        return f"{path} cannot be read: {error.strerror}"
    # Other messages may have many lines, of which the first one is the cause.
    reason = " ".join(str(error).partition("\n")[0].split()) or type(error).__name__
    return f"{path} is damaged ({reason}): {advice}"
