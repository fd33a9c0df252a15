"""The program `ape-stream`: exit codes, errors as one line, signals.

Exit codes: 0 done, 1 the run failed, 2 something given is wrong, 3 a source was truncated (all
that decodes was processed) or some clips of a job failed (all others are done), 128 + n ended by
signal n (130 for Ctrl-C; what was written is kept).
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Annotated

import typer

import ape_stream
from ape_stream.asking.command import ask
from ape_stream.cli import commands, index
from ape_stream.cli.console import (
    Stderr,
    discard_stdout,
    open_standard_streams,
    say,
    say_error,
    show_warnings,
    stdout_problem,
)
from ape_stream.cli.group import PluginGroup
from ape_stream.errors import ApeStreamError, UsageError
from ape_stream.signals import polite_end

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "main", "options"]

app = typer.Typer(
    cls=PluginGroup,
    name="ape-stream",
    help="Words in, tracked masks out, on any video.",
    epilog="Add --debug to any command to see the traceback of an error.",
    invoke_without_command=True,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("annotate")(commands.annotate)
app.command("index")(index.index)
app.command("ask")(ask)
app.command("run")(commands.run)
app.command("convert")(commands.convert)
app.command("recover")(commands.recover)
app.command("doctor")(commands.doctor)
app.command("list")(commands.list_plugins)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 (typer calls it so)
    if wanted:
        typer.echo(f"ape-stream {ape_stream.__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Words in, tracked masks out, on any video."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code.

    Args:
        argv: Arguments after the program's name; None takes those of the process.
    """
    # Every frame makes the same large tensors again: pages of 2 MiB instead of 4 KiB save most of
    # the cost of mapping them. torch reads this once, when it makes its first tensor.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    open_standard_streams()
    show_warnings()
    with polite_end(last=argv is None) as ending:
        try:
            code = _run([word for word in words if word != "--debug"])
        except (KeyboardInterrupt, SystemExit):
            if ending.by is None:
                raise
            code = 0
        except Exception as error:
            known = _report(error, debug=debug)
            if known is None:
                raise
            code = known
        if ending.by is not None:
            say("interrupted; what was written is kept")
            code = 128 + ending.by
        if argv is None:
            _leave_stuck_threads(code)
    return code


def _run(args: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        code = command.main(args, prog_name="ape-stream", standalone_mode=False)
    except typer.Abort as error:  # click's word for two different things
        raise error.__cause__ or KeyboardInterrupt from error
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _report(error: Exception, *, debug: bool) -> int | None:
    """Print an error as one line and return its exit code; None for one that needs a traceback."""
    if (problem := stdout_problem(error)) is not None:
        discard_stdout()
        if isinstance(problem, BrokenPipeError):  # the reader has gone, as in `| head`
            return 1
        message, code = f"cannot write to standard output: {problem.strerror}", 1
    elif (known := _exit_code(error)) is None:
        return None
    else:
        code = known
        message = error.format_message() if hasattr(error, "format_message") else str(error)
    if debug:
        traceback.print_exception(error, file=Stderr())
    say_error(message)
    return code


def _exit_code(error: Exception) -> int | None:
    if isinstance(error, UsageError):
        return 2
    if isinstance(error, ApeStreamError):
        return 1
    # Errors of click and of typer's own copy of it share no type, but this.
    code = getattr(error, "exit_code", None)
    return code if isinstance(code, int) and hasattr(error, "format_message") else None


def _leave_stuck_threads(code: int) -> None:
    """End without the interpreter's clean-up where a thread of a run does not end.

    A model may take minutes for a frame. An interpreter that ends meanwhile takes the thread's
    lock away inside of native code, and C++ aborts the process.
    """
    if any(thread.name.startswith("ape_stream ") for thread in threading.enumerate()):
        for stream in (sys.stdout, Stderr()):
            stream.flush()
        os._exit(code)
