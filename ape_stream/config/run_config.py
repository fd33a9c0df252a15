"""One run as a value, and as TOML; an unknown key is an error that names the valid ones.

    prompts = ["red apple", { text = "sky", stuff = true, threshold = 0.3 }]
    threshold = 0.4                  # for prompts without one of their own
    policy = "auto"                  # every | newest | auto
    buffer = 4                       # frames per stream that wait for the model

    sources = ["clip.mp4", { source = "rtsp://gate/cam", name = "gate" }]
    outputs = ["out/tracks.json", { output = "out/gate.mp4", stream = "gate" }]
    model = { plugin = "ape", model = "nano" }
    tracker = { plugin = "iou" }     # or tracker = "none"

In a table of a source, output, model or tracker, every further key is an option of the plugin:
`ape-stream list` names them. Relative paths count from the working directory.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from ape_stream.errors import ConfigError, PromptError
from ape_stream.pipeline import Policy
from ape_stream.types import Prompt, PromptKind, PromptSet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["OutputConfig", "PluginConfig", "RunConfig", "SourceConfig", "load", "parse"]

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source."""

    source: str
    """A file, directory, pattern, device or URL."""
    name: str | None = None
    """The stream's name; None takes one from the source."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the source's plugin."""


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """One output."""

    output: str
    """A file, a directory, `window`, or `scheme:...` of a plugin."""
    stream: str | None = None
    """Takes only this stream's results; None takes those of all."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the output's plugin."""


@dataclass(frozen=True, slots=True)
class PluginConfig:
    """A perceiver or tracker."""

    plugin: str
    """Its entry-point name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of its factory."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """All that a run is made of."""

    sources: tuple[SourceConfig, ...]
    """What is watched, all at once."""
    prompts: PromptSet
    """What to look for."""
    model: PluginConfig = field(default_factory=lambda: PluginConfig("ape"))
    """What looks for it."""
    tracker: PluginConfig | None = field(default_factory=lambda: PluginConfig("iou"))
    """What gives lasting ids; None gives none."""
    outputs: tuple[OutputConfig, ...] = ()
    """Where results go besides the caller."""
    threshold: float | None = None
    """Lowest score kept, 0..1, for prompts without their own; None leaves it to the model."""
    policy: Policy = "auto"
    """What happens to a frame that the model has no time for."""
    buffer: int = 4
    """Frames per stream that may wait for the model where none is dropped, at least 1."""

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            ConfigError: a number is out of its range, or the policy unknown.
        """
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise ConfigError(f"threshold is {self.threshold}, not within 0..1")
        if self.buffer < 1:
            raise ConfigError(f"buffer is {self.buffer}: at least 1 frame must be able to wait")
        if self.policy not in get_args(Policy):
            raise ConfigError(f"policy {self.policy!r} is none of {', '.join(get_args(Policy))}")


def load(path: Path) -> RunConfig:
    """Read a run from a TOML file.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or says something wrong.
        PromptError: a prompt cannot be used.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    try:
        return parse(given)
    except (ConfigError, PromptError) as error:
        raise type(error)(f"{path}: {error}") from error


def parse(given: Mapping[str, Any]) -> RunConfig:
    """Make a run of the tables of a TOML file.

    Raises:
        ConfigError: a key is unknown or missing, or a value of the wrong type.
        PromptError: a prompt cannot be used.
    """
    table = _Table("the configuration", given)
    config = RunConfig(
        sources=tuple(_source(item) for item in table.take("sources", list, [])),
        prompts=PromptSet.of([_prompt(item) for item in table.take("prompts", list, [])]),
        model=_model(table.take("model", (str, dict), {})),
        tracker=_tracker(table.take("tracker", (str, dict), {})),
        outputs=tuple(_output(item) for item in table.take("outputs", list, [])),
        threshold=table.take("threshold", (float, int), None),
        policy=table.take("policy", str, "auto"),
        buffer=table.take("buffer", int, 4),
    )
    table.refuse_rest()
    return config


class _Table:
    """A TOML table that remembers which keys were asked for."""

    def __init__(self, where: str, given: Mapping[str, Any]) -> None:
        self._where = where
        self._given = given
        self._asked: list[str] = []

    def take(self, key: str, kind: type | tuple[type, ...], default: Any) -> Any:
        """The value at a key; `default` where it is not given, an error where that is `...`."""
        self._asked.append(key)
        value = self._given.get(key, default)
        if value is ...:
            raise ConfigError(f"{self._where} needs {key!r}")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        # bool is an int to Python, but `true` for a number is a mistake.
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
        if wrong and value is not default:
            wanted = " or ".join(_TOML_NAMES[kind] for kind in kinds)
            raise ConfigError(f"{key!r} in {self._where} must be {wanted}, got {value!r}")
        return value

    def rest(self) -> dict[str, Any]:
        """What nobody asked for: options of a plugin."""
        return {key: value for key, value in self._given.items() if key not in self._asked}

    def refuse_rest(self) -> None:
        """Every key must have been asked for."""
        for key in self.rest():
            raise ConfigError(
                f"unknown key {key!r} in {self._where}; it has: {', '.join(self._asked)}"
            )


_TOML_NAMES = {
    bool: "true or false",
    dict: "a table",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "a text",
}


def _text_or_table(
    what: str, item: Any, short: Callable[[str], V], long: Callable[[_Table], V]
) -> V:
    if isinstance(item, str):
        return short(item)
    if isinstance(item, dict):
        return long(_Table(what, item))
    raise ConfigError(f"{what} must be a text or a table, got {item!r}")


def _source(item: Any) -> SourceConfig:
    def long(table: _Table) -> SourceConfig:
        source, name = table.take("source", str, ...), table.take("name", str, None)
        return SourceConfig(source, name, table.rest())

    return _text_or_table("a source", item, SourceConfig, long)


def _output(item: Any) -> OutputConfig:
    def long(table: _Table) -> OutputConfig:
        output, stream = table.take("output", str, ...), table.take("stream", str, None)
        return OutputConfig(output, stream, table.rest())

    return _text_or_table("an output", item, OutputConfig, long)


def _prompt(item: Any) -> Prompt:
    def long(table: _Table) -> Prompt:
        prompt = Prompt(
            text=table.take("text", str, ...),
            kind=_kind(table.take("kind", str, None)),
            stuff=table.take("stuff", bool, False),
            threshold=table.take("threshold", (float, int), None),
        )
        table.refuse_rest()
        return prompt

    return _text_or_table("a prompt", item, Prompt, long)


def _kind(text: str | None) -> PromptKind | None:
    try:
        return None if text is None else PromptKind(text)
    except ValueError as error:
        known = ", ".join(PromptKind)
        raise ConfigError(f"a prompt's kind {text!r} is none of {known}") from error


def _model(item: str | dict[str, Any]) -> PluginConfig:
    if isinstance(item, str):
        return PluginConfig("ape", {"model": item})
    return _plugin("the model", item, "ape")


def _tracker(item: str | dict[str, Any]) -> PluginConfig | None:
    if item == "none":
        return None
    return PluginConfig(item) if isinstance(item, str) else _plugin("the tracker", item, "iou")


def _plugin(what: str, item: dict[str, Any], default: str) -> PluginConfig:
    table = _Table(what, item)
    return PluginConfig(table.take("plugin", str, default), table.rest())
