"""Writes docs/reference/commands.md from the commands themselves; a test holds the page to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ape_stream.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/commands.md"
HEAD = """# Command reference

Made from the code by `tools/command_reference.py`.

Exit codes: 0 done, 1 a run failed, 2 something you gave is wrong, 3 the input broke off.
"""


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    default = parameter.default
    shown = "" if default in (None, False, ...) or callable(default) else f" Default: `{default}`."
    return f"| {names} | {_cell(getattr(parameter, 'help', ''))}{shown} |"


def _sections(name: str, command: Any, level: int = 2) -> Iterator[str]:
    """The page's parts for one command and all below it."""
    yield f"{'#' * level} {name}\n"
    yield f"{_cell(command.help)}\n"
    visible = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    if visible:
        yield "| argument or option | meaning |\n|---|---|\n" + "\n".join(map(_row, visible)) + "\n"
    if hasattr(command, "list_commands"):
        context = typer.Context(command, info_name=name)
        for verb in command.list_commands(context):
            _, found, _ = command.resolve_command(context, [verb])  # imports a plugin's command
            yield from _sections(f"{name} {verb}", found, min(level + 1, 4))


def page() -> str:
    """The text of the page."""
    group = typer.main.get_command(app)
    return "\n".join([HEAD, *_sections("ape-stream", group)]).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
