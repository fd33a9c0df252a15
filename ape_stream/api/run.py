"""`ape_stream.open`: a run in one line of Python."""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from ape_stream.api import given
from ape_stream.config import PluginConfig, RunConfig
from ape_stream.config.build import build_pipeline
from ape_stream.errors import ConfigError
from ape_stream.types import PromptSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ape_stream.api.given import GivenSource, GivenTracker, OneOutput
    from ape_stream.pipeline import Pipeline, Policy
    from ape_stream.protocols import Perceiver
    from ape_stream.types import Prompt

__all__ = ["open"]


def open(  # noqa: A001 (ape_stream.open reads as what it does)
    source: GivenSource,
    prompts: str | Iterable[str | Prompt] | PromptSet,
    *,
    model: str | PathLike[str] | Perceiver = "nano",
    threshold: float | None = None,
    tracker: GivenTracker = "iou",
    outputs: OneOutput | Sequence[OneOutput] = (),
    policy: Policy = "auto",
    overwrite: bool = False,
    **model_options: Any,
) -> Pipeline:
    """Look for words in a video, frame by frame.

        for result in ape_stream.open("clip.mp4", ["red apple", "dog face"]):
            print(result.frame.time_s, result.detections.data["class_name"])

    Nothing is kept: each result is yours when it comes, and gone when you let it go. `with` closes
    everything at a place of your choice; a plain `for` does so at its end.

    Args:
        source: A file, directory, pattern (`shots/*.png`), device number or URL; a ready `Source`
            or `SourceConfig`; or a list of these, whose frames share the model's calls. Or images:
            an array (H, W, 3) uint8 blue-green-red, a PIL image, a list or any other iterable of
            them or of `Frame`s, which is one stream.
        prompts: "red apple, dog face", or texts and `Prompt`s.
        model: A model's name for the `ape` perceiver, or any ready `Perceiver`.
        threshold: Lowest score that is kept, 0..1, for prompts without their own; None leaves it
            to the model.
        tracker: Name of a tracker, or a `PluginConfig` with its options; a class or function that
            makes one for each stream; a ready `Tracker` for a single stream; None: no track ids.
        outputs: Files, directories or addresses to write to, or ready `Sink`s; one, or a list.
        policy: What happens to a frame that the model has no time for: `every` waits its turn,
            only the `newest` does, `auto` decides by the source.
        overwrite: Replace output files of an earlier run; False refuses to.
        **model_options: Options of the perceiver, such as `device="cuda"`.

    Returns:
        The run: iterate over it once; `set_prompts`, `set_threshold`, `stats` and `stop` work
        from any thread meanwhile.

    Raises:
        UsageError: something given cannot be used; the message says what to do.
    """
    named_sources, ready_sources = given.sources(source)
    named_outputs, ready_sinks = given.outputs(outputs)
    named_tracker, ready_tracker = given.tracker(tracker)
    named_model = fspath(model) if isinstance(model, (str, PathLike)) else None
    if named_model is None and model_options:
        raise ConfigError(f"a ready perceiver takes no options, got {', '.join(model_options)}")
    config = RunConfig(
        sources=tuple(named_sources),
        prompts=prompts if isinstance(prompts, PromptSet) else PromptSet.of(prompts),
        model=PluginConfig("ape", {"model": named_model, **model_options}),
        tracker=named_tracker,
        outputs=tuple(named_outputs),
        threshold=threshold,
        policy=policy,
        overwrite=overwrite,
    )
    return build_pipeline(
        config,
        sources=ready_sources,
        sinks=ready_sinks,
        perceiver=None if named_model else given.fits(model, "a model"),
        tracker=ready_tracker,
    )
