"""A tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ape_stream.types import Instances

__all__ = ["Tracker"]


@runtime_checkable
class Tracker(Protocol):
    """Gives the regions of one stream lasting identities."""

    def update(self, found: Instances, time_s: float) -> Instances:
        """Return the regions with track ids; edits nothing.

        Args:
            found: What was found in the stream's next frame. Its prompt ids are class ids here:
                one number for a prompt's text and kind for as long as it stays among the prompts,
                wherever it stands in the set. A prompt that comes back has a new one.
            time_s: The frame's time in seconds, finite and never less than the last one's: where a
                stream's clock steps back, a new tracker is made.
        """
        ...
