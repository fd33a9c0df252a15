"""What a node's inputs say about its health: lost, silent, unreadable, without depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ape_nodes.ros2.diagnostics import Health

__all__ = ["SILENT_S", "DepthWatch", "InputWatch", "PairCounts"]

SILENT_S = 3.0
"""After this time without an image a subscribed node warns."""
_LOST = "lost on their way: see 'Raw images on the network' in docs/ros2.md"
_UNPAIRED = 5
"""After this many images in a row without depth, at any rate of images, it warns as well."""


@dataclass(slots=True)
class InputWatch:
    """What happened to a node's images; `health` judges what is new since its last call."""

    topic: str = ""
    """The topic that is subscribed to; empty while none is."""
    received: int = 0
    """All that arrived."""
    skipped: int = 0
    """Left out by `max_rate`, or because the node was not active."""
    unreadable: int = 0
    """Left out because their pixels could not be read or their stamp was impossible."""
    lost: int = 0
    """Sent by a publisher and lost by the transport."""
    depth_lost: int = 0
    """Depth of which the same is known."""
    publishers: int = 0
    """Publishers that are matched."""
    incompatible: str = ""
    """The QoS policy for which a publisher does not match; empty if all do."""
    unreadable_reason: str = ""
    """Why the last one could not be read."""
    _since_s: float = 0.0
    _seen: tuple[int, ...] = (0, 0, 0, 0)

    def subscribed(self, topic: str, now_s: float) -> None:
        """Say that images are waited for from now on."""
        self.topic, self._since_s = topic, now_s
        self.publishers, self.incompatible = 0, ""

    def unsubscribed(self) -> None:
        """Say that none are waited for."""
        self.topic = ""

    def arrived(self, now_s: float) -> None:
        """Count an image."""
        self.received += 1
        self._since_s = now_s

    def values(self) -> dict[str, int]:
        """The counts, for diagnostics."""
        return {
            "received": self.received,
            "skipped": self.skipped,
            "unreadable": self.unreadable,
            "lost": self.lost,
            "publishers": self.publishers,
        }

    def health(self, now_s: float) -> Health | None:
        """A warning, or None where all is well."""
        before = self._seen
        self._seen = (self.received, self.unreadable, self.lost, self.depth_lost)
        received, unreadable, lost, depth_lost = (
            a - b for a, b in zip(self._seen, before, strict=True)
        )
        if not self.topic:
            return None
        if now_s - self._since_s >= SILENT_S:
            return Health("WARN", self.silence(now_s - self._since_s))
        if unreadable and unreadable >= received:
            return Health("WARN", f"no image can be read: {self.unreadable_reason}")
        if lost:
            return Health(
                "WARN",
                f"{lost} of {lost + received} images were {_LOST}, or use image_transport"
                " compressed",
            )
        if depth_lost:
            return Health("WARN", f"{depth_lost} messages of depth were {_LOST}")
        return None

    def silence(self, silent_s: float) -> str:
        """Why no image has come for this time."""
        text = f"no image on {self.topic} for {silent_s:.0f} s: "
        if self.incompatible:
            return text + f"a publisher's {self.incompatible} does not match: see image_reliability"
        if not self.publishers:
            return text + "it has no publisher that is seen here"
        there = "1 publisher is" if self.publishers == 1 else f"{self.publishers} publishers are"
        return text + f"{there} there, but nothing arrives"


class PairCounts(Protocol):
    """How well depth and images are paired; see `DepthPairs`."""

    slop_ns: int
    paired: int
    unpaired: int
    apart_ns: int | None


@dataclass(slots=True)
class DepthWatch:
    """Judges whether images get their depth."""

    _paired: int = 0
    _unpaired: int = 0

    def health(self, pairs: PairCounts, problem: str) -> Health | None:
        """A warning, or None where all is well.

        Args:
            pairs: The counts since the subscription.
            problem: Why the depth of the last image that had one cannot be used; empty if it can.
        """
        if pairs.paired != self._paired or pairs.unpaired < self._unpaired:
            self._paired, self._unpaired = pairs.paired, pairs.unpaired
        if pairs.unpaired - self._unpaired >= _UNPAIRED:
            apart = "no depth comes"
            if pairs.apart_ns is not None:
                apart = f"the closest is {pairs.apart_ns / 1e6:.0f} ms off"
            slop = f"{pairs.slop_ns / 1e6:.0f} ms (depth_slop)"
            return Health("WARN", f"no image has depth within {slop}: {apart}")
        if problem and pairs.paired:
            return Health("WARN", f"images have no depth: {problem}")
        return None
