"""Plugins by name: sources, sinks, trackers, perceivers, commands, doctors.

A plugin is an entry point of an installed package; ours are declared in the same way, so there is
one way to do a thing. The group says what it is, the name is what users write:

    group                  name is                              value is
    ape_stream.sources     a scheme (rtsp) or kind (video)      (spec, *, name, **options) -> Source
    ape_stream.sinks       a scheme (zmq), suffix (mp4) or kind (spec, **options) -> Sink
    ape_stream.trackers    a name (iou)                         (**options) -> Tracker
    ape_stream.perceivers  a name (ape)                         (**options) -> Perceiver
    ape_stream.worlds      a name                               (**options) -> renderer of videos
    ape_stream.commands    a verb of `ape-stream`, or `verb.sub` a typer.Typer or typer function
    ape_stream.doctor      a topic                              () -> [(what, finding), ...]

`spec` is the whole string that the user wrote (`rtsp://...`, `out.mp4`, `zmq:pub+bind:tcp://...`);
`name` is the stream's name, unique within the run. `ape_stream.specs` says which string goes to
which name. Options are the factory's keyword arguments: what the signature does not name is
refused with the list of what it does. A factory that cannot use a value raises `UsageError` or
`ValueError`. A plugin that needs an extra of its package may name it in its entry point:
`cam = "my_package:Camera [cam]"`.

A model may be named with the perceiver that runs it: `owlv2:google/owlv2-base-patch16`.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from ape_stream.errors import ConfigError, PluginError
from ape_stream.tables import read_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "GROUPS",
    "PERCEIVER",
    "Plugin",
    "find",
    "load",
    "make",
    "make_model",
    "names",
    "option_names",
    "perceiver_of",
    "survey",
]

GROUPS = ("sources", "sinks", "trackers", "perceivers", "worlds", "commands", "doctor")
"""Short names of the entry-point groups; each is `ape_stream.<name>` in full."""

PERCEIVER: Final = "ape"
"""The perceiver that runs a model whose name names none."""

# Two letters at least: `C:` begins a path on Windows.
_PERCEIVER_PREFIX = re.compile(r"([a-z][a-z0-9_-]+):(.*)")

# Core metadata, Requires-Dist: `aiohttp>=3.14; extra == "web"`; with more conditions: not judged.
_OF_EXTRA = re.compile(r"""(?P<name>[\w.-]+)[^;]*;\s*extra\s*==\s*["'](?P<extra>[\w.-]+)["']""")

_EXTRAS = {
    "cyclonedds": "dds",
    "huggingface_hub": "hub",
    "lz4": "zmq",
    "msgpack": "zmq",
    "rosbags": "bags",
    "trackers": "trackers",
    "zmq": "zmq",
    "zstandard": "zmq",
}
"""Our extra that brings an import name; a plugin may also name it in its entry point."""
_INSTEAD = {"dds": "rclpy"}
"""A module that stands in for an extra: topics come through a sourced ROS 2 as well."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin as `ape-stream list` shows it."""

    group: str
    """What it is: one of `GROUPS`."""
    name: str
    """The name that users write."""
    target: str
    """Where it lives, `module:attribute`."""
    package: str
    """The installed distribution that declares it."""
    problem: str | None
    """Why it cannot be used here, in one line, or None where it loads."""


def find(group: str) -> dict[str, EntryPoint]:
    """The plugins of a group by name, in alphabetical order; nothing is imported."""
    # From the metadata of installed packages: a plugin's own code does not run.
    found = entry_points(group=f"ape_stream.{group}")
    return {entry.name: entry for entry in sorted(found, key=lambda entry: entry.name)}


def names(group: str) -> tuple[str, ...]:
    """The names in a group, in alphabetical order."""
    return tuple(find(group))


def load(group: str, name: str) -> Any:
    """Import a plugin.

    Args:
        group: One of `GROUPS`.
        name: The name that the user wrote.

    Returns:
        What the entry point names: usually a factory.

    Raises:
        PluginError: no plugin has that name, an extra is missing, or the plugin does not import.
    """
    found = find(group)
    if name not in found:
        kind = group.removesuffix("s")  # for messages: "sources" -> "source"
        raise PluginError(f"no {kind} is called {name!r}; there are: {', '.join(found) or 'none'}")
    return _import(group, found[name])


def _import(group: str, entry: EntryPoint) -> Any:
    kind = group.removesuffix("s")
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        remedy = _remedy(entry, error.name or "")
        raise PluginError(f"{kind} {entry.name!r} needs {error.name}{remedy}") from error
    except Exception as error:  # any module may fail in any way while it is imported
        raise PluginError(f"{kind} {entry.name!r} ({entry.value}) is broken: {error}") from error


def _remedy(entry: EntryPoint, missing: str) -> str:
    if entry.extras:
        return f": pip install '{_package(entry)}[{','.join(entry.extras)}]'"
    return f": pip install 'ape-stream[{_EXTRAS[missing]}]'" if missing in _EXTRAS else ""


def _missing(entry: EntryPoint) -> str:
    """The first package of an entry's extras that is not installed, or "".

    A plugin that imports its library at its first use is imported without it, too.
    """
    extras = [e for e in entry.extras if e not in _INSTEAD or find_spec(_INSTEAD[e]) is None]
    for requirement in (entry.dist.requires or ()) if entry.dist is not None else ():
        needed = _OF_EXTRA.fullmatch(requirement)
        if needed is not None and needed["extra"] in extras:
            try:
                version(needed["name"])
            except PackageNotFoundError:
                return needed["name"]
    return ""


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "ape-stream"


def make(group: str, name: str, *given: Any, options: Mapping[str, Any]) -> Any:
    """Load a plugin's factory and call it.

    Args:
        group: One of `GROUPS`.
        name: The name that the user wrote.
        given: What the convention passes by position (`spec`).
        options: Keyword arguments from the user.

    Raises:
        PluginError: the plugin cannot be loaded.
        ConfigError: an option is unknown, of a wrong type or of a wrong value.
    """
    factory = load(group, name)
    what = f"{group.removesuffix('s')} {name!r}"
    read = _read_options(what, factory, options, positional=len(given))
    try:
        return factory(*given, **read)
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from error


def perceiver_of(model: str) -> tuple[str | None, dict[str, Any]]:
    """The perceiver that a model's name names, and its options.

    Args:
        model: What the user calls the model. "owlv2:NAME" goes to the perceiver `owlv2`, with NAME
            as its option `model`; the name of a perceiver alone, to that one without options. A
            file or folder that exists is always a model.

    Returns:
        The perceiver, or None where the text names none; and its options.
    """
    if match := _PERCEIVER_PREFIX.fullmatch(model):
        if not Path(model).exists():
            return match[1], {"model": match[2]} if match[2] else {}
    elif model in names("perceivers"):
        return model, {}
    return None, {"model": model}


def make_model(model: str, options: Mapping[str, Any]) -> Any:
    """Make the perceiver that runs a model.

    Args:
        model: See `perceiver_of`.
        options: Keyword arguments from the user, without the model.

    Raises:
        PluginError: the plugin cannot be loaded.
        ConfigError: an option is unknown, of a wrong type or of a wrong value.
    """
    plugin, own = perceiver_of(model)
    return make("perceivers", plugin or PERCEIVER, options={**own, **options})


def option_names(factory: Callable[..., Any], *, positional: int) -> tuple[str, ...]:
    """The keyword arguments of a factory, after those that the convention passes by position."""
    return tuple(_parameters(factory, positional))


def _parameters(factory: Callable[..., Any], positional: int) -> dict[str, inspect.Parameter]:
    parameters = list(inspect.signature(factory).parameters.values())[positional:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in parameters if p.kind in named}


def _takes_anything(factory: Callable[..., Any]) -> bool:
    kinds = [p.kind for p in inspect.signature(factory).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def _read_options(
    what: str, factory: Callable[..., Any], options: Mapping[str, Any], *, positional: int
) -> dict[str, Any]:
    """The options in the types that the factory's signature asks for."""
    known = _parameters(factory, positional)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            raise ConfigError(f"{what} needs option {name!r}")
    read: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known and not _takes_anything(factory):
            raise ConfigError(
                f"unknown option {name!r} of {what}; it has: {', '.join(known) or 'none'}"
            )
        # What goes into `**options` has no annotation of its own: any type will do.
        hint = _type_of(known[name], factory) if name in known else Any
        read[name] = read_value(value, hint, f"option {name!r} of {what}")
    return read


def _type_of(parameter: inspect.Parameter, factory: Callable[..., Any]) -> Any:
    """The annotation of a parameter as a type; Any where it names what only a checker imports."""
    # One parameter at a time: another one may be annotated with a name that is imported for type
    # checkers only, which would fail all of them together.
    # Names in annotations are looked up where the factory was written.
    made_by = factory.__init__ if inspect.isclass(factory) else factory
    holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hints = get_type_hints(holder, getattr(made_by, "__globals__", {}))
    except NameError:
        return Any
    return Any if hints[parameter.name] is parameter.empty else hints[parameter.name]


def survey(group: str) -> list[Plugin]:
    """Every plugin of a group, imported to see whether it works; a broken one is reported."""
    return [_inspect(group, entry) for entry in find(group).values()]


def _inspect(group: str, entry: EntryPoint) -> Plugin:
    try:
        _import(group, entry)
    except PluginError as error:
        problem: str | None = str(error).splitlines()[0]
    else:
        missing = _missing(entry)
        kind = group.removesuffix("s")
        problem = (
            f"{kind} {entry.name!r} needs {missing}{_remedy(entry, missing)}" if missing else None
        )
    return Plugin(group, entry.name, entry.value, _package(entry), problem)
