"""`ape_stream.open`: a run in one line of Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ape_stream.api import given
from ape_stream.api.images import LoadedModel
from ape_stream.config import RunConfig
from ape_stream.config.build import build_pipeline
from ape_stream.types import PromptSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

    from ape_stream.api.given import GivenSource, GivenTracker, OneOutput
    from ape_stream.pipeline import Pipeline, Policy
    from ape_stream.protocols import Perceiver
    from ape_stream.types import MapKind, Prompt

__all__ = ["open"]


def open(  # noqa: A001, PLR0913 (reads as what it does; all that a run is made of)
    source: GivenSource,
    prompts: str | Prompt | Iterable[str | Prompt] | PromptSet,
    *,
    model: str | PathLike[str] | Perceiver | LoadedModel = "nano",
    threshold: float | None = None,
    tracker: GivenTracker = "iou",
    outputs: OneOutput | Sequence[OneOutput] = (),
    policy: Policy = "auto",
    overwrite: bool = False,
    maps: MapKind | Iterable[MapKind] = (),
    **model_options: Any,
) -> Pipeline:
    """Look for words in a video, frame by frame.

        for result in ape_stream.open("clip.mp4", ["red apple", "dog face"]):
            print(result.frame.time_s, result.detections.data["class_name"])

    Results are not kept. `with` closes everything where you want it; a plain `for` at its end.

    Args:
        source: A file, directory, pattern (`shots/*.png`), device number or URL; a ready `Source`
            or `SourceConfig`; or a list of these. Or images, as one stream: an array or tensor
            ([N,] H, W, 3) uint8 blue-green-red, a PIL image, an iterable of them or of `Frame`s.
        prompts: "red apple, dog face", or texts and `Prompt`s.
        model: A model's name for the `ape` perceiver, what `load` gave, or a ready `Perceiver`.
        threshold: Lowest score kept, 0..1, for prompts without their own; None: the model's.
        tracker: A name, a `PluginConfig` with options, a class or function that makes one for each
            stream, or a ready `Tracker`, copied for further streams; None: no track ids.
        outputs: Files, directories or addresses to write to, or ready `Sink`s; one, or a list.
        policy: Frames that wait for the model: `every`, only the `newest`, or `auto` by source.
        overwrite: Replace output files of an earlier run; False refuses to.
        maps: `"semantic"`, `"panoptic"`, or a list: maps of every pixel that every result has.
        **model_options: Options of the perceiver, such as `device="cuda"`.

    Returns:
        The run, to be iterated once; its other methods may be called from any thread.

    Raises:
        UsageError: something given cannot be used; the message says what to do.
    """
    named_sources, ready_sources = given.sources(source)
    named_outputs, sinks = given.outputs(outputs)
    named_tracker, ready_tracker = given.tracker(tracker)
    model = model.perceiver() if isinstance(model, LoadedModel) else model
    named_model, ready_model = given.model(model, model_options)
    config = RunConfig(
        sources=tuple(named_sources),
        prompts=prompts if isinstance(prompts, PromptSet) else PromptSet.of(prompts),
        model=named_model,
        tracker=named_tracker,
        outputs=tuple(named_outputs),
        threshold=threshold,
        policy=policy,
        overwrite=overwrite,
        maps=given.maps(maps),
    )
    return build_pipeline(
        config, sources=ready_sources, sinks=sinks, perceiver=ready_model, tracker=ready_tracker
    )
