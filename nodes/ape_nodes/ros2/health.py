"""What a node's inputs say about its health: lost, silent, unreadable, without depth."""

from __future__ import annotations

from dataclasses import dataclass

from ape_nodes.ros2.diagnostics import Health

__all__ = ["SILENT_S", "InputWatch"]

SILENT_S = 3.0
"""After this time without an image a subscribed node warns."""


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
    publishers: int = 0
    """Publishers that are matched."""
    incompatible: str = ""
    """The QoS policy for which a publisher does not match; empty if all do."""
    unreadable_reason: str = ""
    """Why the last one could not be read."""
    _since_s: float = 0.0
    _seen: tuple[int, int, int] = (0, 0, 0)

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
        before, self._seen = self._seen, (self.received, self.unreadable, self.lost)
        received, unreadable, lost = (a - b for a, b in zip(self._seen, before, strict=True))
        if not self.topic:
            return None
        if now_s - self._since_s >= SILENT_S:
            return Health("WARN", self.silence(now_s - self._since_s))
        if unreadable and unreadable >= received:
            return Health("WARN", f"no image can be read: {self.unreadable_reason}")
        if lost:
            return Health(
                "WARN",
                f"{lost} of {lost + received} images were lost on their way: see 'Raw images on the"
                " network' in docs/ros2.md, or use image_transport compressed",
            )
        return None

    def silence(self, silent_s: float) -> str:
        """Why no image has come for this time."""
        text = f"no image on {self.topic} for {silent_s:.0f} s: "
        if self.incompatible:
            return text + f"a publisher's {self.incompatible} does not match: see image_reliability"
        if not self.publishers:
            return text + "it has no publisher that is seen here"
        return text + f"{self.publishers} publishers are there, but nothing arrives"
