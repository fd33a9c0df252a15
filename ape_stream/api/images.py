"""Single images: words in, detections out, with the model kept between calls."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, overload

from ape_stream.api.given import fits
from ape_stream.errors import ConfigError, PluginError
from ape_stream.pipeline.shared_perceiver import SharedPerceiver
from ape_stream.plugins import make_model
from ape_stream.result import FrameResult
from ape_stream.sources.pixels import as_arrays, is_image, to_bgr
from ape_stream.types import Frame, PromptSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    import supervision as sv

    from ape_stream.protocols import Perceiver
    from ape_stream.sources.pixels import ImageLike
    from ape_stream.types import Prompt

__all__ = ["LoadedModel", "find", "load"]

BATCH = 8
"""Images of one call of the model: enough to share its fixed cost, few enough for any memory."""
KEPT = 2
"""Models that `find` keeps for its next calls."""

_kept: dict[tuple[str, str], LoadedModel] = {}
_kept_lock = threading.Lock()


class LoadedModel:
    """A model that is ready. Made by `load`; may be used from any thread, by runs meanwhile, too.

        model = ape_stream.load("nano")
        detections = model.find("image.png", "red apple, dog face")
        run = ape_stream.open("clip.mp4", "red apple", model=model)

    Args:
        perceiver: What finds; nobody else may use it.
    """

    def __init__(self, perceiver: Perceiver) -> None:
        # A perceiver serves one call at a time, and its prompts must not change in between.
        self._shared = SharedPerceiver()
        self._shared.load(lambda: perceiver)

    def __repr__(self) -> str:
        prompts = self._shared.prompts
        prepared = "" if prompts is None else f": {prompts}"
        return f"LoadedModel({type(self._shared.loaded).__name__}{prepared})"

    def perceiver(self) -> Perceiver:
        """The same model for a run with prompts of its own; `open(model=...)` calls this."""
        return self._shared.handle()

    @overload
    def find(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too
        self, images: ImageLike, prompts: str | Prompt | Iterable[str | Prompt] | PromptSet
    ) -> sv.Detections: ...

    @overload
    def find(
        self,
        images: Sequence[ImageLike],
        prompts: str | Prompt | Iterable[str | Prompt] | PromptSet,
    ) -> list[sv.Detections]: ...

    def find(
        self,
        images: ImageLike | Sequence[ImageLike],
        prompts: str | Prompt | Iterable[str | Prompt] | PromptSet,
    ) -> sv.Detections | list[sv.Detections]:
        """Find what the prompts name.

        Args:
            images: One image, or a list of them: NumPy arrays (H, W, 3) uint8 in blue-green-red
                as OpenCV reads them, PIL images as their pixels are stored
                (`PIL.ImageOps.exif_transpose` turns a photograph), or paths of files, which are
                turned upright.
            prompts: "red apple, dog face", or texts and `Prompt`s.

        Returns:
            `supervision.Detections` of the image, or a list of them in the order of the images;
            `data["class_name"]` holds the prompts' texts. There are no track ids.

        Raises:
            UsageError: something given cannot be used; the message says what to do.
            SourceError: the file of an image cannot be read.
        """
        images = as_arrays(images)
        if isinstance(images, Iterable) and not _is_one(images):
            return self._find(list(images), prompts)
        return self._find([images], prompts)[0]  # type: ignore[list-item]

    def _find(
        self,
        images: Sequence[ImageLike],
        prompts: str | Prompt | Iterable[str | Prompt] | PromptSet,
    ) -> list[sv.Detections]:
        wanted = prompts if isinstance(prompts, PromptSet) else PromptSet.of(prompts)
        found: list[sv.Detections] = []
        with self._shared.prepared(wanted) as perceiver:
            for first in range(0, len(images), BATCH):
                # Indices go on from one call to the next.
                part = [
                    Frame(to_bgr(image), index, 0.0)
                    for index, image in enumerate(images[first : first + BATCH], first)
                ]
                results = zip(part, perceiver.perceive(part), strict=True)
                found += [FrameResult(frame, own, wanted).detections for frame, own in results]
        return found


def _is_one(images: object) -> bool:
    return is_image(images) or isinstance(images, (str, bytes, PathLike))


def load(
    model: str | PathLike[str] | Perceiver | LoadedModel = "nano", **options: Any
) -> LoadedModel:
    """Load a model for single images and for any number of runs.

    Args:
        model: A model's name, the folder of one, or a ready `Perceiver`.
        **options: Of the perceiver: `threshold=0.4`, `device="cuda"`, `dtype="bfloat16"` ...

    Raises:
        ModelError: the model is not here or cannot be read.
        PluginError: there is no such option; the message lists those that exist.
    """
    if isinstance(model, (str, PathLike)):
        return LoadedModel(make_model(fspath(model), options))
    if options:
        raise PluginError(f"a ready perceiver takes no options, got {', '.join(options)}")
    return model if isinstance(model, LoadedModel) else LoadedModel(fits(model, "a model"))


@overload
def find(
    images: ImageLike,
    prompts: str | Prompt | Iterable[str | Prompt] | PromptSet,
    *,
    model: str | PathLike[str] | LoadedModel = ...,
    **options: Any,
) -> sv.Detections: ...


@overload
def find(
    images: Sequence[ImageLike],
    prompts: str | Prompt | Iterable[str | Prompt] | PromptSet,
    *,
    model: str | PathLike[str] | LoadedModel = ...,
    **options: Any,
) -> list[sv.Detections]: ...


def find(
    images: ImageLike | Sequence[ImageLike],
    prompts: str | Prompt | Iterable[str | Prompt] | PromptSet,
    *,
    model: str | PathLike[str] | LoadedModel = "nano",
    **options: Any,
) -> sv.Detections | list[sv.Detections]:
    """Find words in single images.

        detections = ape_stream.find("street.jpg", "car, person", model="D")

    The last two models stay loaded for the next calls; `load` gives one that is yours.

    Args:
        images: See `LoadedModel.find`.
        prompts: See `LoadedModel.find`.
        model: A model's name, the folder of one, or what `load` gave.
        **options: Of the perceiver: `threshold=0.4`, `device="cuda"` ...

    Returns:
        Detections of the image, or a list of them for a list of images.

    Raises:
        UsageError: something given cannot be used; the message says what to do.
        SourceError: the file of an image cannot be read.
    """
    if isinstance(model, LoadedModel):
        return load(model, **options).find(images, prompts)
    if not isinstance(model, (str, PathLike)):
        raise ConfigError(
            f"a model is a name, a path or what `load` gives, got {type(model).__name__}:"
            " give a ready perceiver to `load`"
        )
    return _keep(fspath(model), options).find(images, prompts)


def _keep(model: str, options: dict[str, Any]) -> LoadedModel:
    """The model of earlier calls with the same options, else a new one."""
    key = (model, repr(sorted(options.items())))  # a value may have no hash
    with _kept_lock:
        # Loaded under the lock: two threads that ask at once load it once.
        loaded = _kept.pop(key, None) or load(model, **options)
        _kept[key] = loaded  # the newest stands last
        while len(_kept) > KEPT:
            del _kept[next(iter(_kept))]
    return loaded
