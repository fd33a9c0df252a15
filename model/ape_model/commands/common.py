"""What the commands share: errors in one line, tables, progress."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ape_model.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["one_line_errors", "print_json", "print_table", "progress_bar", "size"]

_USAGE_ERROR: Final = 2
"""Exit code of what the user gave wrong."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print an error that the user can fix as one line on stderr, and exit with 2."""
    try:
        yield
    except ModelError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(_USAGE_ERROR) from None


def print_json(content: Any) -> None:
    """Print `content` for machines: one JSON document on stdout."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2))


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text for people."""
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def size(count: int | None) -> str:
    """Return a number of bytes for people, "-" for none."""
    return "-" if count is None else f"{count / 1e6:,.1f} MB"


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr if it is a terminal; yields a function of (done, total)."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
