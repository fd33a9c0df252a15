"""One run as a value, and as TOML; an unknown key is an error that names the valid ones.

    prompts = ["red apple", { text = "sky", stuff = true, threshold = 0.3 }]
    threshold = 0.4                  # for prompts without one of their own
    policy = "auto"                  # every | newest | auto
    buffer = 4                       # frames per stream that wait for the model
    overwrite = false                # true: replace outputs of an earlier run
    maps = ["semantic"]              # every result has them: semantic, panoptic

    sources = ["clip.mp4", { source = "rtsp://gate/cam", name = "gate" }]
    outputs = ["out/tracks.json", "out/{stream}.mp4", { output = "gate.png", stream = "gate" }]
    model = { plugin = "ape", model = "nano" }   # or model = "nano", model = "owlv2:NAME"
    tracker = { plugin = "iou" }     # or tracker = "none"

In a table of a source, output, model or tracker, every further key is an option of the plugin:
`ape-stream list` names them. Relative paths count from the working directory.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping  # noqa: TC003 (`read_table` reads the annotations)
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ape_stream.errors import ConfigError, PromptError, reason_of
from ape_stream.pipeline import Policy  # noqa: TC001 (the same)
from ape_stream.plugins import PERCEIVER, perceiver_of
from ape_stream.tables import read_table
from ape_stream.types import MapKind, PromptSet
from ape_stream.values.prompts import check_threshold
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["OutputConfig", "PluginConfig", "RunConfig", "SourceConfig", "load", "parse"]


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source."""

    source: str
    """A file, directory, pattern, device or URL."""
    name: str | None = None
    """The stream's name; None takes one from the source."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the source's plugin."""
    is_one: bool = False
    """Whether `source` is one stream for certain; False opens folders, patterns and lists."""


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """One output."""

    output: str
    """A file, a directory, `window`, or `scheme:...` of a plugin. `{stream}` in it stands for the
    name of a stream: there is then one such output for each."""
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

    def with_model(self, model: str) -> PluginConfig:
        """A perceiver for this model: another one with no other options if its name names one."""
        plugin, options = perceiver_of(model)
        if plugin in {None, self.plugin}:
            return PluginConfig(self.plugin, {**self.options, **options})
        return PluginConfig(str(plugin), options)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """All that a run is made of."""

    sources: tuple[SourceConfig, ...]
    """What is watched, all at once."""
    prompts: PromptSet
    """What to look for."""
    model: PluginConfig = field(default_factory=lambda: PluginConfig(PERCEIVER))
    """What looks for it."""
    tracker: PluginConfig | None = field(default_factory=lambda: PluginConfig("iou"))
    """What gives lasting ids; None gives none."""
    outputs: tuple[OutputConfig, ...] = ()
    """Where results go, in addition to the caller."""
    threshold: float | None = None
    """Lowest score kept, 0..1, for prompts without their own; None leaves it to the model."""
    policy: Policy = "auto"
    """What happens to a frame that the model has no time for."""
    buffer: int = 4
    """Frames per stream that may wait for the model where none is dropped, at least 1."""
    overwrite: bool = False
    """Replace files of an earlier run; False refuses a run whose outputs exist."""
    maps: tuple[MapKind, ...] = ()
    """Maps of every pixel that every result has, in addition to those that outputs need."""

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            ConfigError: the buffer holds no frame.
            PromptError: the threshold is outside 0..1.
        """
        if self.threshold is not None:
            check_threshold(self.threshold)
        if self.buffer < 1:
            raise ConfigError(f"buffer is {self.buffer}: at least 1 frame must be able to wait")


def load(path: Path, *, prompts: PromptSet | None = None) -> RunConfig:
    """Read a run from a TOML file.

    Args:
        path: The file.
        prompts: Prompts in place of the file's, which then needs none.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or says something wrong.
        PromptError: a prompt cannot be used.
    """
    try:
        given = tomllib.loads(read_text(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, or nested too deep
        raise ConfigError(f"{path} is not TOML: {error}") from error
    try:
        return parse(given, prompts=prompts)
    except (ConfigError, PromptError) as error:
        # The same kind of error, with the name of the file.
        raise type(error)(f"{path}: {error}") from error


def parse(given: Mapping[str, Any], *, prompts: PromptSet | None = None) -> RunConfig:
    """Make a run of the tables of a TOML file.

    Args:
        given: The tables.
        prompts: Prompts in place of those in the tables.

    Raises:
        ConfigError: a key is unknown or missing, or a value of the wrong type.
        PromptError: a prompt cannot be used.
    """
    table = read_table(_RunTable, given, "the configuration")
    return RunConfig(
        sources=tuple(
            read_table(SourceConfig, item, "a source", short="source", rest="options")
            for item in table.sources
        ),
        prompts=PromptSet.of(table.prompts) if prompts is None else prompts,
        model=_model(table.model),
        tracker=_tracker(table.tracker),
        outputs=tuple(
            read_table(OutputConfig, item, "an output", short="output", rest="options")
            for item in table.outputs
        ),
        threshold=table.threshold,
        policy=table.policy,
        buffer=table.buffer,
        overwrite=table.overwrite,
        maps=table.maps,
    )


@dataclass(frozen=True, slots=True)
class _RunTable:
    """The keys of a run file; see `RunConfig`."""

    sources: list[Any] = field(default_factory=list)
    prompts: list[Any] = field(default_factory=list)
    model: str | dict[str, Any] = field(default_factory=dict)
    tracker: str | dict[str, Any] = field(default_factory=dict)
    outputs: list[Any] = field(default_factory=list)
    threshold: float | None = None
    policy: Policy = "auto"
    buffer: int = 4
    overwrite: bool = False
    maps: tuple[MapKind, ...] = ()


def _model(item: str | dict[str, Any]) -> PluginConfig:
    default = PluginConfig(PERCEIVER)
    if isinstance(item, str):
        return default.with_model(item)
    if "plugin" in item or not isinstance(name := item.get("model"), str):
        return _plugin("the model", item, PERCEIVER)
    others = {key: value for key, value in item.items() if key != "model"}
    named = default.with_model(name)
    return _plugin("the model", {**named.options, **others}, named.plugin)


def _tracker(item: str | dict[str, Any]) -> PluginConfig | None:
    if item == "none":
        return None
    return PluginConfig(item) if isinstance(item, str) else _plugin("the tracker", item, "iou")


def _plugin(what: str, item: dict[str, Any], default: str) -> PluginConfig:
    # The default comes first: a `plugin` of the user takes its place.
    return read_table(PluginConfig, {"plugin": default, **item}, what, rest="options")
