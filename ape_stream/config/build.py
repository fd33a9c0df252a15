"""From a `RunConfig` to a `Pipeline`: the only module where plugins are made and joined."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ape_stream.errors import ConfigError, PluginError, SinkError, SourceError
from ape_stream.files import file_name
from ape_stream.formats.registry import FORMATS
from ape_stream.pipeline import Pipeline
from ape_stream.plugins import load, make, names, option_names
from ape_stream.protocols import ChecksItself
from ape_stream.sinks.conflicts import refuse_conflicts
from ape_stream.sinks.one_stream import OneStream
from ape_stream.sources.media import expand
from ape_stream.specs import sink_plugin, source_plugin, stream_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ape_stream.config import OutputConfig, PluginConfig, RunConfig, SourceConfig
    from ape_stream.protocols import Perceiver, Sink, Source, Tracker

__all__ = ["build_pipeline"]


def build_pipeline(
    config: RunConfig,
    *,
    sources: Sequence[Source] = (),
    sinks: Sequence[Sink] = (),
    perceiver: Perceiver | None = None,
    tracker: Callable[[], Tracker] | None = None,
) -> Pipeline:
    """Make a pipeline: load every plugin that a run names, and join them.

    Sources and outputs come first, so that a wrong path is reported before a model loads.

    Args:
        config: The run.
        sources: Ready sources, before those of the configuration.
        sinks: Ready sinks, after those of the configuration.
        perceiver: A ready model in place of the configuration's.
        tracker: Makes a tracker for each stream, in place of the configuration's.

    Raises:
        UsageError: a source, output, plugin or option cannot be used.
    """
    all_sources = [*sources, *_sources(config.sources, {source.name for source in sources})]
    outputs = [*_sinks(config, [source.name for source in all_sources]), *sinks]
    _check(all_sources, outputs)
    if tracker is None:
        tracker = _tracker_factory(config.tracker)
    if perceiver is None:
        perceiver = make("perceivers", config.model.plugin, options=config.model.options)
    return Pipeline(
        all_sources,
        perceiver,
        config.prompts,
        tracker=tracker,
        sinks=outputs,
        threshold=config.threshold,
        policy=config.policy,
        buffer=config.buffer,
        maps=config.maps,
    )


def _check(sources: Sequence[Source], outputs: Sequence[Sink]) -> None:
    """Refuse what could not run; where another value helps, it is an error of usage.

    Raises:
        ConfigError: a source could not be opened, or an output not be written.
    """
    try:
        refuse_conflicts(outputs, sources)
        for part in (*sources, *outputs):
            if isinstance(part, ChecksItself):
                part.check()
    except (SourceError, SinkError) as error:
        raise ConfigError(str(error)) from error


def _sources(configs: Iterable[SourceConfig], taken: set[str]) -> list[Source]:
    expanded = [(config, spec) for config in configs for spec in _specs(config)]
    # All names that were given come first: a name that is made up must not take one of them.
    taken = taken | {config.name for config, _ in expanded if config.name is not None}
    sources: list[Source] = []
    for config, spec in expanded:
        plugin = source_plugin(spec)
        name = config.name or stream_name(spec, taken)
        taken.add(name)
        sources.append(make("sources", plugin, spec, options={**config.options, "name": name}))
    return sources


def _specs(config: SourceConfig) -> list[str]:
    return [config.source] if config.is_one else expand(config.source)


def _sinks(config: RunConfig, streams: Sequence[str]) -> list[Sink]:
    """The outputs; one that is named with `{stream}` becomes one for each stream."""
    sinks = []
    for output in config.outputs:
        _refuse_names(output, streams)
        for stream in streams if "{stream}" in output.output else [output.stream]:
            if output.stream in (None, stream):
                name = output.output.replace("{stream}", file_name(stream or ""))
                one = replace(output, output=name, stream=stream)
                sinks.append(_sink(one, overwrite=config.overwrite))
    return sinks


def _refuse_names(output: OutputConfig, streams: Sequence[str]) -> None:
    """Refuse an output that would get no results, or whose name has a field that is none.

    Raises:
        ConfigError: it would, or has.
    """
    if wrong := set(re.findall(r"\{\w*\}", output.output)) - {"{stream}"}:
        raise ConfigError(
            f"output {output.output!r}: {' and '.join(sorted(wrong))} stands for nothing, only"
            " {stream} does, for a stream's name"
        )
    if output.stream not in (None, *streams):
        raise ConfigError(
            f"output {output.output!r} is of stream {output.stream!r}, and no source has that"
            f" name; there are: {', '.join(streams)}"
        )


def _sink(config: OutputConfig, *, overwrite: bool) -> Sink:
    plugin = sink_plugin(config.output)
    if plugin not in (known := names("sinks")):
        folder = "" if Path(config.output).suffix else f"; a folder needs a slash: {config.output}/"
        raise PluginError(
            f"output {config.output!r}: no output is called {plugin!r}; there are:"
            f" {', '.join(known)}{folder}"
        )
    if plugin == "labels":
        _refuse_format(config.output)
    options = dict(config.options)
    # Sinks that write no files have no such option.
    if overwrite and "overwrite" in option_names(load("sinks", plugin), positional=1):
        options.setdefault("overwrite", True)
    sink: Sink = make("sinks", plugin, config.output, options=options)
    return sink if config.stream is None else OneStream(sink, config.stream)


def _refuse_format(folder: str) -> None:
    """Refuse label maps in a folder whose name asks for an annotation format.

    Raises:
        ConfigError: it does.
    """
    name = Path(folder).name
    if name in FORMATS and name != "masks":  # masks are label maps
        raise ConfigError(
            f"{folder} would hold label maps, not {name}: `annotate` over files takes --format"
            f" {name} with --out-dir; `ape-stream convert` makes it of a .jsonl"
        )


def _tracker_factory(config: PluginConfig | None) -> Callable[[], Tracker] | None:
    if config is None:
        return None
    load("trackers", config.plugin)  # a wrong name is an error now, not with the first stream
    return partial(make, "trackers", config.plugin, options=config.options)
