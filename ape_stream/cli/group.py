"""Commands of plugins among our own: one is imported when it is called or when help is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ape_stream.errors import PluginError
from ape_stream.plugins import find, load

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PluginGroup"]


class PluginGroup(TyperGroup):
    """Our commands, and those of the entry points `ape_stream.commands`.

    `bench.wire` is the command `wire` of `bench`. The module of a command holds its options and
    little else: it imports what is heavy when it runs, so that help is quick.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Ours first, then those of plugins in alphabetical order."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in find("commands") if name not in own and "." not in name)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by name; None where nobody has it."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in find("commands"):
            return own
        command = _loaded(cmd_name)
        for full in find("commands"):
            group, _, name = full.partition(".")
            # `_loaded` makes a new group at each call, so nothing is added twice. A single function
            # has no `add_command`: it takes no subcommands.
            if name and group == cmd_name and hasattr(command, "add_command"):
                command.add_command(_loaded(full), name)
        return command


def _loaded(name: str) -> Any:
    """The command of a plugin; of one that cannot be imported, a command that says why."""
    try:
        found = load("commands", name)
    except PluginError as error:
        return TyperCommand(
            name.rpartition(".")[2],
            help=f"Cannot be used: {error}",
            callback=_raiser(error),
            # Takes any arguments: the reason is shown, and no complaint about an option.
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )
    if not isinstance(found, typer.Typer):
        # An app with one command becomes that command itself, not a group.
        wrapped = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        wrapped.command(name)(found)
        found = wrapped
    command = typer.main.get_command(found)
    command.name = name.rpartition(".")[2]
    return command


def _raiser(error: PluginError) -> Callable[[], None]:
    def refuse() -> None:
        raise error

    return refuse
