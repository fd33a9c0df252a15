"""`ape_stream.open`: a run in one line of Python."""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from ape_stream.config import OutputConfig, PluginConfig, RunConfig, SourceConfig
from ape_stream.config.build import build_pipeline
from ape_stream.errors import ConfigError
from ape_stream.types import PromptSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ape_stream.pipeline import Pipeline, Policy
    from ape_stream.protocols import Perceiver, Sink, Source
    from ape_stream.types import Prompt

    OneSource = str | int | PathLike[str] | SourceConfig | Source
    OneOutput = str | PathLike[str] | OutputConfig | Sink

__all__ = ["open"]


def open(  # noqa: A001 (ape_stream.open reads as what it does)
    source: OneSource | Sequence[OneSource],
    prompts: str | Iterable[str | Prompt] | PromptSet,
    *,
    model: str | Perceiver = "nano",
    threshold: float | None = None,
    tracker: str | PluginConfig | None = "iou",
    outputs: Sequence[OneOutput] = (),
    policy: Policy = "auto",
    **model_options: Any,
) -> Pipeline:
    """Look for words in a video, frame by frame.

        for result in ape_stream.open("clip.mp4", ["red apple", "dog face"]):
            print(result.frame.time_s, result.detections.data["class_name"])

    Nothing is kept: each result is yours when it comes, and gone when you let it go. `with` closes
    everything at a place of your choice; a plain `for` does so at its end.

    Args:
        source: A file, directory, pattern (`shots/*.png`), device number or URL; a ready `Source`
            or `SourceConfig`; or a list of these, whose frames share the model's calls.
        prompts: "red apple, dog face", or texts and `Prompt`s.
        model: A model's name for the `ape` perceiver, or any ready `Perceiver`.
        threshold: Lowest score that is kept, 0..1, for prompts without their own; None leaves it
            to the model.
        tracker: Name of a tracker, or a `PluginConfig` with its options; None: no track ids.
        outputs: Files, directories or addresses to write to, or ready `Sink`s.
        policy: What happens to a frame that the model has no time for: `every` waits its turn,
            only the `newest` does, `auto` decides by the source.
        **model_options: Options of the perceiver, such as `device="cuda"`.

    Returns:
        The run: iterate over it once; `set_prompts`, `set_threshold`, `stats` and `stop` work
        from any thread meanwhile.

    Raises:
        UsageError: something given cannot be used; the message says what to do.
    """
    named_sources, ready_sources = _sources(source)
    named_outputs, ready_sinks = _outputs(outputs)
    ready_model = None if isinstance(model, str) else model
    if ready_model is not None and model_options:
        raise ConfigError(f"a ready perceiver takes no options, got {', '.join(model_options)}")
    config = RunConfig(
        sources=tuple(named_sources),
        prompts=prompts if isinstance(prompts, PromptSet) else PromptSet.of(prompts),
        model=PluginConfig("ape", {"model": model, **model_options}),
        tracker=PluginConfig(tracker) if isinstance(tracker, str) else tracker,
        outputs=tuple(named_outputs),
        threshold=threshold,
        policy=policy,
    )
    return build_pipeline(config, sources=ready_sources, sinks=ready_sinks, perceiver=ready_model)


def _sources(given: OneSource | Sequence[OneSource]) -> tuple[list[SourceConfig], list[Source]]:
    named: list[SourceConfig] = []
    ready: list[Source] = []
    items: Sequence[OneSource] = given if isinstance(given, (list, tuple)) else [given]  # type: ignore[list-item]
    for item in items:
        if isinstance(item, SourceConfig):
            named.append(item)
        elif isinstance(item, (str, int, PathLike)):
            named.append(SourceConfig(str(item) if isinstance(item, int) else fspath(item)))
        else:
            ready.append(item)
    return named, ready


def _outputs(given: Sequence[OneOutput]) -> tuple[list[OutputConfig], list[Sink]]:
    named: list[OutputConfig] = []
    ready: list[Sink] = []
    for item in given:
        if isinstance(item, OutputConfig):
            named.append(item)
        elif isinstance(item, (str, PathLike)):
            named.append(OutputConfig(fspath(item)))
        else:
            ready.append(item)
    return named, ready
