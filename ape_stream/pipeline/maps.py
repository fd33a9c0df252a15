"""Which maps of every pixel a run makes: those that were asked for, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from ape_stream.errors import ConfigError
from ape_stream.protocols import NeedsMaps, PaintsMaps
from ape_stream.types import MapKind, Maps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ape_stream.protocols import Perceiver, Sink
    from ape_stream.types import Frame, Instances

__all__ = ["MapRequest"]


class MapRequest:
    """Calls a perceiver for what the run, and its sinks at this moment, need.

    Args:
        perceiver: The model.
        given: What every result has, or what says it for the next frames.
        sinks: Those that need maps say so themselves (see `NeedsMaps`).

    Raises:
        ConfigError: there is no such map, or the model makes none.
    """

    def __init__(
        self,
        perceiver: Perceiver,
        given: Iterable[MapKind] | NeedsMaps,
        sinks: Iterable[Sink],
    ) -> None:
        always: frozenset[MapKind] = frozenset(() if isinstance(given, NeedsMaps) else given)
        if wrong := always - set(get_args(MapKind)):
            raise ConfigError(
                f"there is no map {min(wrong)!r}: maps are {', '.join(get_args(MapKind))}"
            )
        self.perceiver = perceiver
        """The model."""
        self._always = always
        self._sinks = [sink for sink in (given, *sinks) if isinstance(sink, NeedsMaps)]
        self._check(self._wanted())

    def _wanted(self) -> frozenset[MapKind]:
        return self._always.union(*(sink.maps for sink in self._sinks))

    def _check(self, wanted: frozenset[MapKind]) -> None:
        if wanted and not isinstance(self.perceiver, PaintsMaps):
            raise ConfigError(f"the model makes no {' or '.join(sorted(wanted))} maps")

    def perceive(self, frames: Sequence[Frame]) -> list[tuple[Instances, Maps]]:
        """What is in the frames, with the maps that are needed now."""
        wanted = self._wanted()
        self._check(wanted)
        if wanted and isinstance(self.perceiver, PaintsMaps):
            return self.perceiver.perceive_with_maps(frames, wanted)
        return [(found, Maps()) for found in self.perceiver.perceive(frames)]
