"""Standard output and error, which may be closed or full while a run goes on."""

from __future__ import annotations

import io
import logging
import os
import sys
from contextlib import suppress
from typing import IO, cast

from rich.console import Console

__all__ = [
    "Stderr",
    "discard_stdout",
    "error_console",
    "open_standard_streams",
    "say",
    "say_error",
    "show_warnings",
    "stdout_problem",
]

_STDERR = 2  # number of its file descriptor
_OPTIONS = {"overwrite=True": "--overwrite"}


def open_standard_streams() -> None:
    """Open what the process was started without, as by `>&-`, on the null device.

    Python leaves such a stream out, and the next file that is opened gets its number: what a
    native library or a child process prints would go into an output.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def say(line: str) -> None:
    """Print a line on standard error; one that is closed ends no run."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)  # noqa: T201 (this is the console)


def say_error(message: str) -> None:
    """Print an error of the library as one line, with its arguments as options of the shell."""
    for argument, option in _OPTIONS.items():
        message = message.replace(argument, option)
    say(f"error: {' '.join(message.split())}")


class Stderr(io.TextIOBase):
    """Standard error as it is at each call, without its errors."""

    def write(self, text: str, /) -> int:
        """Write if it can be."""
        with suppress(OSError, ValueError):
            # Looked up at every call: it may be redirected while a run goes on.
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if it can be."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        """Whether a person reads it."""
        with suppress(OSError, ValueError):
            return sys.stderr.isatty()
        return False

    def fileno(self) -> int:
        """For the size of the terminal."""
        return sys.stderr.fileno()


def error_console() -> Console:
    """Rich's console on standard error.

    Names of files and prompts are shown as they are: "[b]" is no markup there, ":m:" no emoji.
    """
    return Console(file=cast("IO[str]", Stderr()), markup=False, emoji=False)


def stdout_problem(error: Exception) -> OSError | None:
    """Why standard output takes no more, if that is what an error is about."""
    if not isinstance(error, OSError) or error.filename is not None:
        return None
    try:
        print(flush=True)  # noqa: T201 (what failed before is no longer in its buffer)
    except OSError as again:
        return again
    return None


def discard_stdout() -> None:
    """Throw away what could not be printed, so that the interpreter can end in peace."""
    with suppress(OSError, ValueError):
        # At its end the interpreter flushes stdout once more and would fail with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Notice(logging.Handler):
    """Writes what takes a while, and is no warning, to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


class _OneLine(logging.Handler):
    """Writes to standard error as it is at each call, so that redirection works."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


def show_warnings() -> None:
    """Print warnings and notices as single lines on standard error; safe to call again.

    A notice is an information of the logger `ape_stream.notice`: why a user has to wait.
    """
    notices = logging.getLogger("ape_stream.notice")
    if not any(isinstance(handler, _Notice) for handler in notices.handlers):
        notices.addHandler(_Notice(logging.INFO))
    notices.setLevel(logging.INFO)
    notices.propagate = False
    logger = logging.getLogger("ape_stream")
    if not any(isinstance(handler, _OneLine) for handler in logger.handlers):
        logger.addHandler(_OneLine(logging.WARNING))
    # Else handlers of the root logger would print the same line again.
    logger.propagate = False
