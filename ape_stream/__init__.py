"""Words in, tracked masks out, on any video.

    api                           open, find, load: a run, or single images, in one call
    pipeline, config              Pipeline: a run from ready parts; RunConfig: as data or TOML
    types, values, result         Frame, Prompt, ...: what moves through it
    protocols, testing            Source, Sink, ...: the shapes of own parts; fakes of them
    sources, sinks, trackers, formats  where frames come from, where results go; identities
    masks, depth, wire, draw, interop  masks; boxes in space; results as bytes and as an overlay
    plugins, specs, datasets      parts by name; which part a string means; labelled images
    cli, evaluation, annotation, batch, index, indexing, asking  commands; scores; jobs; ask later
    channel, stats, signals       hand-over between threads; counts and times; Ctrl-C
    files, errors, tables, closing, devices, optional, native    what all of them use

Public as modules: `depth`, `draw`, `masks`, `wire`, `testing`, `plugins`, `evaluation`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from ape_stream.api import LoadedModel, find, load, open  # noqa: A004 (reads as what it does)
    from ape_stream.config import OutputConfig, PluginConfig, RunConfig, SourceConfig
    from ape_stream.errors import (
        ApeStreamError,
        ConfigError,
        ModelError,
        PipelineError,
        PluginError,
        PromptError,
        SinkError,
        SourceError,
        TruncatedError,
        UsageError,
        WireError,
    )
    from ape_stream.pipeline import Pipeline
    from ape_stream.protocols import Perceiver, Sink, Source, Tracker
    from ape_stream.sources.push import PushSource
    from ape_stream.stats import RunStats
    from ape_stream.types import (
        Frame,
        FrameResult,
        Instances,
        Maps,
        Mask,
        PanopticMap,
        Prompt,
        PromptKind,
        PromptSet,
        Segment,
        SemanticMap,
    )

__all__ = [
    "ApeStreamError",
    "ConfigError",
    "Frame",
    "FrameResult",
    "Instances",
    "LoadedModel",
    "Maps",
    "Mask",
    "ModelError",
    "OutputConfig",
    "PanopticMap",
    "Perceiver",
    "Pipeline",
    "PipelineError",
    "PluginConfig",
    "PluginError",
    "Prompt",
    "PromptError",
    "PromptKind",
    "PromptSet",
    "PushSource",
    "RunConfig",
    "RunStats",
    "Segment",
    "SemanticMap",
    "Sink",
    "SinkError",
    "Source",
    "SourceConfig",
    "SourceError",
    "Tracker",
    "TruncatedError",
    "UsageError",
    "WireError",
    "find",
    "load",
    "open",
]

_HOMES = {
    "ape_stream.api": ("LoadedModel", "find", "load", "open"),
    "ape_stream.config": ("OutputConfig", "PluginConfig", "RunConfig", "SourceConfig"),
    "ape_stream.errors": (
        "ApeStreamError",
        "ConfigError",
        "ModelError",
        "PipelineError",
        "PluginError",
        "PromptError",
        "SinkError",
        "SourceError",
        "TruncatedError",
        "UsageError",
        "WireError",
    ),
    "ape_stream.pipeline": ("Pipeline",),
    "ape_stream.protocols": ("Perceiver", "Sink", "Source", "Tracker"),
    "ape_stream.sources.push": ("PushSource",),
    "ape_stream.stats": ("RunStats",),
    "ape_stream.types": (
        "Frame",
        "FrameResult",
        "Instances",
        "Maps",
        "Mask",
        "PanopticMap",
        "Prompt",
        "PromptKind",
        "PromptSet",
        "Segment",
        "SemanticMap",
    ),
}
"""Where public names are: they are imported on use, so that a command starts quickly."""


def __getattr__(name: str) -> Any:
    """Import a public name, or a module, on use."""
    if name == "__version__":
        return _version()
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(home), name)
            return value
    module = f"{__name__}.{name}"
    if name.startswith("_") or find_spec(module) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(module)


def _version() -> str:
    """The version that is installed; "unknown" where the sources are only on the path."""
    from importlib import metadata  # noqa: PLC0415 (most of what `import ape_stream` would take)

    try:
        return metadata.version("ape-stream")
    except metadata.PackageNotFoundError:
        return "unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
