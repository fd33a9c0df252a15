"""One connection of a live stream, in a thread of its own.

FFmpeg blocks while it opens and reads, and a container must be closed by the thread that reads it.
So the thread opens, reads and closes; the source takes what arrived, notices when nothing does,
and can leave at once.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import av

from ape_stream.channel import Aborted, Channel, Ended
from ape_stream.errors import SourceError
from ape_stream.sources.video.arrivals import Arrivals
from ape_stream.sources.video.opening import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ape_stream.sources.video.arrivals import Arrival, Seen
    from ape_stream.sources.video.faults import Faults
    from ape_stream.sources.video.opening import Opened

__all__ = ["Connection"]

QUIET_S: Final = 0.15
"""Nothing arrived for this long: the sender has no more for now."""

# A thread that FFmpeg holds for longer closes its container later, by itself.
_LEAVE_S: Final = 0.5
# Frames: few, so that a slow reader slows the network down instead of filling the memory.
_WAITING: Final = 4


class Connection:
    """Opens and reads in a thread until the sender ends, is silent, or is left.

    Args:
        opener: Opens the container; called in the thread.
        seen: What earlier connections had.
        read_timeout_s: Silence after which it counts as lost, seconds.
        faults: Counts damaged packets.
    """

    def __init__(
        self, opener: Callable[[], Opened], seen: Seen, read_timeout_s: float, faults: Faults
    ) -> None:
        self.ended_by: str = "it ended"
        """Why it is over."""
        self.ended_well = False
        """Whether the sender closed it, rather than an error or silence."""
        self._opener = opener
        self._seen = seen
        self._faults = faults
        self._read_timeout_s = read_timeout_s
        self._channel: Channel[Arrival] = Channel(_WAITING)
        self._thread = threading.Thread(target=self._run, name="ape_stream video", daemon=True)
        self._thread.start()

    def arrivals(self, left: threading.Event) -> Iterator[Arrival | None]:
        """What arrives, in order; None each time that nothing came for `QUIET_S`.

        Args:
            left: Set once nobody wants more.
        """
        while not left.is_set():
            try:
                yield self._channel.get(QUIET_S)
            # None lets the reader act during a pause: hand out what it held back, or leave.
            except TimeoutError:
                yield None
            except (Ended, Aborted):
                return

    def leave(self) -> None:
        """Have the thread close the container; it does so at its next packet or time limit."""
        self._channel.abort("left")
        self._thread.join(_LEAVE_S)

    # -- in the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        opened: Opened | None = None
        try:
            opened = self._opener()
            with suppress(Aborted):  # `leave` was called: no end of the sender's
                arrivals = Arrivals(
                    opened, self._seen, self._channel, self._read_timeout_s, self._faults
                )
                arrivals.run()
                self.ended_well = True
        except SourceError as error:
            self.ended_by = str(error)
        except (av.FFmpegError, OSError) as error:
            self.ended_by = reason(error, silent_s=self._read_timeout_s)
        finally:
            # Close before `end`: who sees the end may open the device again at once.
            if opened is not None:
                opened.container.close()
            self._channel.end()
