"""`ape-stream`: verbs of the core, verbs of plugins loaded only when used, one-line errors.

Exit codes: 0 done, 1 the run failed, 2 something given is wrong, 3 a source was truncated (all
that decodes was processed), 130 interrupted (outputs are closed).
"""

from __future__ import annotations

import ast
import os
import re
import signal
import sys
import threading
import traceback
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import ape_stream
from ape_stream.cli import commands
from ape_stream.cli.progress import show_warnings
from ape_stream.errors import ApeStreamError, UsageError
from ape_stream.plugins import find, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.metadata import EntryPoint
    from types import FrameType

__all__ = ["app", "main", "options"]


class _LazyGroup(TyperGroup):
    """Knows the verbs of plugins by name; imports one when it is called, not for `--help`."""

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *(name for name in find("commands") if name not in own and "." not in name)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        entry = find("commands").get(cmd_name)
        if own is not None or entry is None:
            return own
        return TyperCommand(cmd_name, help=_help_of(entry))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and super().get_command(ctx, name) is None:
            command = _load_verb(name)
            _add_subverbs(name, command, wanted=rest[0] if rest else "")
        return name, command, rest


def _load_verb(name: str) -> Any:
    found = load("commands", name)
    if not isinstance(found, typer.Typer):
        wrapped = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        wrapped.command(name)(found)
        found = wrapped
    command = typer.main.get_command(found)
    command.name = name
    return command


def _add_subverbs(verb: str, command: Any, *, wanted: str) -> None:
    """Give a verb what other packages add to it (`bench.wire`); only the wanted one is imported."""
    for full, entry in find("commands").items():
        owner, _, sub = full.partition(".")
        if sub and owner == verb:
            added = _load_verb(full) if sub == wanted else TyperCommand(sub, help=_help_of(entry))
            command.add_command(added, sub)


def _help_of(entry: EntryPoint) -> str:
    """First line of the docstring of a plugin's function or module, read but not executed."""
    top, *rest = entry.module.split(".")
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        return ""
    base = Path(spec.origin).parent.joinpath(*rest) if rest else Path(spec.origin)
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return _first_line(ast.parse(file.read_text("utf-8")), entry.attr)
    return ""


def _first_line(module: ast.Module, name: str) -> str:
    described: list[ast.Module | ast.FunctionDef] = [
        node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    doc = ast.get_docstring((described or [module])[0]) or ""
    line = re.sub(r"^`ape-stream [\w-]+`: ", "", doc.partition("\n")[0])
    return line[:1].upper() + line[1:]


app = typer.Typer(
    cls=_LazyGroup,
    name="ape-stream",
    help="Words in, tracked masks out, on any video.",
    epilog="Add --debug to any command to see the traceback of an error.",
    invoke_without_command=True,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("annotate")(commands.annotate)
app.command("run")(commands.run)
app.command("doctor")(commands.doctor)
app.command("list")(commands.list_plugins)


@app.callback()
def options(
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Words in, tracked masks out, on any video."""
    if version:
        typer.echo(f"ape-stream {ape_stream.__version__}")
        raise typer.Exit


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code.

    Args:
        argv: Arguments after the program's name; None takes those of the process.
    """
    # Frames make the same large tensors again and again, mapped anew each time: pages of 2 MiB
    # instead of 4 KiB save most of that. torch reads this once, when it makes its first tensor.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    given = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in given
    show_warnings()
    try:
        with _terminable():
            return _run([word for word in given if word != "--debug"])
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        if debug:
            traceback.print_exc()
        _complain(error)
        return code


@contextmanager
def _terminable() -> Iterator[None]:
    """A polite kill closes outputs as Ctrl-C does. Python takes signals in its main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _run(args: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        code = command.main(args, prog_name="ape-stream", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("interrupted; outputs are closed", err=True)
        return 130
    except BrokenPipeError:  # whoever read our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def _exit_code(error: Exception) -> int | None:
    """The exit code of an error that needs no traceback; None for one that does."""
    if isinstance(error, UsageError):
        return 2
    if isinstance(error, ApeStreamError):
        return 1
    # Errors of click and of typer's own copy of it share no type, but this.
    code = getattr(error, "exit_code", None)
    return code if isinstance(code, int) and hasattr(error, "format_message") else None


def _complain(error: Exception) -> None:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    typer.echo(f"error: {' '.join(message.split())}", err=True)
