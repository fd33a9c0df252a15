"""What a caller may give to `open`: names to be made, or ready objects, checked by their shape."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable
from functools import partial
from io import IOBase
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ape_stream.config import OutputConfig, PluginConfig, SourceConfig
from ape_stream.errors import ConfigError
from ape_stream.plugins import PERCEIVER
from ape_stream.sources.memory import MemorySource
from ape_stream.sources.pixels import as_arrays, is_image
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from ape_stream.protocols import Perceiver, Sink, Source, Tracker
    from ape_stream.types import MapKind

    Pixels: TypeAlias = NDArray[np.uint8] | Image.Image | Frame
    """One image in memory."""
    OneSource: TypeAlias = str | int | PathLike[str] | SourceConfig | Source | Pixels
    GivenSource: TypeAlias = OneSource | Sequence[OneSource] | Iterable[Pixels]
    OneOutput: TypeAlias = str | PathLike[str] | OutputConfig | Sink
    GivenTracker: TypeAlias = str | PluginConfig | Tracker | Callable[[], Tracker] | None

__all__ = ["fits", "maps", "model", "outputs", "sources", "tracker"]

Part = Literal["a source", "an output", "a model", "a tracker"]

_METHODS: dict[Part, tuple[str, ...]] = {
    "a source": ("__enter__", "__exit__", "__iter__"),
    "an output": ("__enter__", "__exit__", "write"),
    "a model": ("prepare", "perceive"),
    "a tracker": ("update",),
}
_CALLS: dict[Part, dict[str, tuple[str, ...]]] = {
    "an output": {"write": ("result",)},
    "a model": {"prepare": ("prompts",), "perceive": ("frames",)},
    "a tracker": {"update": ("found", "time_s")},
}
"""How methods are called: with these arguments, by position."""
_ATTRIBUTES: dict[Part, tuple[str, ...]] = {"a source": ("name", "live")}

_CAN_BE: dict[Part, str] = {
    "a source": "a path, URL or device number, an array or PIL image, an iterable of these or of"
    " Frames, or a Source",
    "an output": "a path, an address, or a Sink",
    "a model": "a name, a folder, what `load` gives, or a Perceiver",
    "a tracker": "a name, a Tracker, or its class",
}


def fits(item: Any, what: Part) -> Any:
    """Return the item if it has the shape of that part of a pipeline (`ape_stream.protocols`).

    Raises:
        ConfigError: it is a class, or something is missing; the message names what.
    """
    missing = [f"{name}()" for name in _METHODS[what] if not callable(getattr(item, name, None))]
    missing += [name for name in _ATTRIBUTES.get(what, ()) if not hasattr(item, name)]
    if isinstance(item, type):
        raise ConfigError(f"{what} is an object, not a class: give {item.__name__}(...)")
    if missing:
        raise ConfigError(
            f"{type(item).__name__} cannot be {what}: it has no {', '.join(missing)};"
            f" give {_CAN_BE[what]}"
        )
    for name, arguments in _CALLS.get(what, {}).items():
        call = f"{type(item).__name__}.{name}({', '.join(arguments)})"
        _refuse_call(getattr(item, name), arguments, f"{what} is called as {call}")
    return item


def _refuse_call(function: Callable[..., Any], arguments: tuple[str, ...], says: str) -> None:
    """Refuse what cannot be called with so many arguments.

    Raises:
        ConfigError: it cannot; the message says which one is missing or too many.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions in C have none
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise ConfigError(f"{says}: {error}") from error


def sources(given: GivenSource) -> tuple[list[SourceConfig], list[Source]]:
    """The sources to be made, and the ready ones.

    A list of images is one stream, as is any other iterable that is no `Source`; every other list
    holds one source an item.
    """
    named: list[SourceConfig] = []
    ready: list[Source] = []
    for item in _items(given):
        if isinstance(item, SourceConfig):
            named.append(item)
        elif isinstance(item, (str, int, PathLike)):
            named.append(SourceConfig(str(item) if isinstance(item, int) else fspath(item)))
        else:
            ready.append(_ready_source(item, {source.name for source in ready}))
    return named, ready


def _items(given: Any) -> Sequence[Any]:
    if not isinstance(given, (list, tuple)):
        return [as_arrays(given)]
    given = [as_arrays(item) for item in given]
    # Images in a list are the frames of one stream; names in a list are a stream each.
    return [given] if given and all(map(_in_memory, given)) else given


def _in_memory(item: object) -> bool:
    return is_image(item) or isinstance(item, Frame)


def _ready_source(item: Any, taken: set[str]) -> Source:
    images = [item] if _in_memory(item) else item
    # Every `Source` can be iterated too; only a `Source` has `live`.
    if isinstance(images, Iterable) and not hasattr(images, "live") and not isinstance(item, type):
        name, count = "images", 1
        while name in taken:
            count += 1
            name = f"images-{count}"
        return MemorySource(images, name=name)
    source: Source = fits(item, "a source")
    return source


def outputs(given: OneOutput | Sequence[OneOutput]) -> tuple[list[OutputConfig], list[Sink]]:
    """The outputs to be made, and the ready ones."""
    named: list[OutputConfig] = []
    ready: list[Sink] = []
    for item in given if isinstance(given, (list, tuple)) else [given]:
        if isinstance(item, OutputConfig):
            named.append(item)
        elif isinstance(item, (str, PathLike)):
            named.append(OutputConfig(fspath(item)))
        elif isinstance(item, IOBase):  # it has the methods of a sink, for something else
            raise ConfigError("an open file cannot be an output: give its path")
        else:
            ready.append(fits(item, "an output"))
    return named, ready


def maps(given: MapKind | Iterable[MapKind]) -> tuple[MapKind, ...]:
    """The maps that are asked for: one, or several."""
    # Asked by its type: a text is an iterable of letters, too.
    return (given,) if isinstance(given, str) else tuple(given)


def model(
    given: str | PathLike[str] | Perceiver, options: Mapping[str, Any]
) -> tuple[PluginConfig, Perceiver | None]:
    """The model to be made with these options, and a ready one that takes its place.

    Raises:
        ConfigError: a ready one has options, or is none.
    """
    if isinstance(given, (str, PathLike)):
        named = PluginConfig(PERCEIVER).with_model(fspath(given))
        return PluginConfig(named.plugin, {**named.options, **options}), None
    if options:
        raise ConfigError(f"a ready perceiver takes no options, got {', '.join(options)}")
    return PluginConfig(PERCEIVER), fits(given, "a model")


def tracker(
    given: GivenTracker,
) -> tuple[PluginConfig | None, Callable[[], Tracker] | None]:
    """The tracker to be made, or a function that makes one for each stream.

    Raises:
        ConfigError: it is no name, no tracker, and makes none.
    """
    if given is None or isinstance(given, PluginConfig):
        return given, None
    if isinstance(given, str):  # "none" as on the command line and in files
        return (None if given == "none" else PluginConfig(given)), None
    # A class has `update` as well, but it makes trackers and is none.
    if isinstance(given, type) or not hasattr(given, "update"):
        make = given if callable(given) else partial(fits, given, "a tracker")
        _refuse_call(make, (), "a tracker is made without arguments: give a function that does so")
        return None, lambda: fits(make(), "a tracker")
    ready: Tracker = fits(given, "a tracker")
    return None, _Copies(ready)


class _Copies:
    """A ready tracker, and copies of it for further streams, and for clocks that begin again.

    It has the tracks of one stream on one clock: others need one without tracks.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._ready: Tracker | None = tracker
        try:
            # Copied before it has seen anything.
            self._fresh: Tracker | None = copy.deepcopy(tracker)
        except Exception:  # noqa: BLE001 (what a tracker of others holds may refuse in any way)
            self._fresh = None

    def __call__(self) -> Tracker:
        ready, self._ready = self._ready, None
        if ready is not None:
            return ready
        if self._fresh is None:
            raise ConfigError(
                "this tracker cannot be copied, and follows one stream on one clock: give its"
                " class, or a function that makes one"
            )
        return copy.deepcopy(self._fresh)
