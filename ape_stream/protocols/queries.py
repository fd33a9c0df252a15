"""A perceiver whose frames can be indexed: asked later for words that nobody has thought of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ape_stream.protocols.perceiver import PaintsMaps, Perceiver

if TYPE_CHECKING:
    from ape_stream.values.frame import Frame
    from ape_stream.values.queries import FrameQueries, NetworkFacts

__all__ = ["GivesQueries"]


@runtime_checkable
class GivesQueries(Perceiver, PaintsMaps, Protocol):
    """A perceiver that can also give the states of its queries, which no name changes."""

    @property
    def facts(self) -> NetworkFacts:
        """What scores the states later."""
        ...

    def queries(self, frame: Frame) -> FrameQueries:
        """The queries of a frame alone: nothing needs to be prepared, and nothing is looked for."""
        ...
