"""Areas and lines in a camera's image: who is inside, who came and went, on the stream's clock.

Whether a region is in an area, or has crossed a line, is decided by supervision's `PolygonZone`
(by the middle of the box's lower edge) and `LineZone` (by all four corners). Only tracked regions
count: without a track id nobody knows who is who.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_nodes.web.prompts import ConflictError
from ape_nodes.web.zones import looking
from ape_stream.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import supervision as sv
    from numpy.typing import NDArray

    from ape_nodes.web.protocol import Zone
    from ape_stream.types import FrameResult

__all__ = ["MAX_ZONES", "Event", "Zones"]

MAX_ZONES: Final = 32
LOST_S: Final = 1.0
"""A track that is not seen for so long has left, at the time when it was last seen."""


@dataclass(frozen=True, slots=True)
class Event:
    """Somebody came, went or crossed."""

    event: str
    """entered, left, crossed_in or crossed_out."""
    stream: str
    zone: str
    prompt: str
    track: int
    time: float
    """Seconds on the stream's clock."""
    seconds: float | None = None
    """left: how long it was inside."""
    utc: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    snapshot: str | None = None
    """Name of a file in the server's folder."""


@dataclass(slots=True)
class _Visit:
    prompt: str
    since_s: float
    seen_s: float


class _Area:
    """Who is inside an area."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self._visits: dict[int, _Visit] = {}
        self._entered = 0
        self._left = 0
        self._left_s = 0.0
        self._trigger: sv.PolygonZone | None = None

    def fit(self, size: tuple[int, int]) -> None:
        import supervision as sv  # noqa: PLC0415 (it takes a second to import)

        self._trigger = sv.PolygonZone(_pixels(self.zone, size))

    def update(
        self, found: sv.Detections, prompts: Sequence[str], time_s: float
    ) -> list[tuple[str, int, str, float, float | None]]:
        """(event, track, prompt, time, seconds) of what happened."""
        assert self._trigger is not None  # noqa: S101 (`fit` comes first)
        events: list[tuple[str, int, str, float, float | None]] = []
        inside = self._trigger.trigger(found)
        tracks = [] if found.tracker_id is None else found.tracker_id.tolist()
        for track, prompt, within in zip(tracks, prompts, inside.tolist(), strict=True):
            visit = self._visits.get(track)
            if within and visit is None:
                self._visits[track] = _Visit(prompt, time_s, time_s)
                self._entered += 1
                events.append(("entered", track, prompt, time_s, None))
            elif within and visit is not None:
                visit.seen_s = time_s
            elif visit is not None:
                events.append(self._end(track, visit, time_s))
        gone = [(t, v) for t, v in self._visits.items() if time_s - v.seen_s > LOST_S]
        return events + [self._end(track, visit, visit.seen_s) for track, visit in gone]

    def _end(
        self, track: int, visit: _Visit, time_s: float
    ) -> tuple[str, int, str, float, float | None]:
        del self._visits[track]
        stay_s = time_s - visit.since_s
        self._left += 1
        self._left_s += stay_s
        return "left", track, visit.prompt, time_s, round(stay_s, 3)

    def restart(self) -> list[tuple[str, int, str, float, float | None]]:
        """Everybody leaves: the stream's tracks have ended."""
        return [self._end(track, visit, visit.seen_s) for track, visit in [*self._visits.items()]]

    def counts(self) -> dict[str, Any]:
        mean_s = round(self._left_s / self._left, 3) if self._left else None
        inside = len(self._visits)
        return {"inside": inside, "entered": self._entered, "left": self._left, "mean_s": mean_s}


class _Line:
    """Who crossed a line, each way."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self._in = 0
        self._out = 0
        self._trigger: sv.LineZone | None = None

    def fit(self, size: tuple[int, int]) -> None:
        import supervision as sv  # noqa: PLC0415 (it takes a second to import)

        start, end = _pixels(self.zone, size).tolist()
        self._trigger = sv.LineZone(sv.Point(*start), sv.Point(*end))

    def update(
        self, found: sv.Detections, prompts: Sequence[str], time_s: float
    ) -> list[tuple[str, int, str, float, float | None]]:
        """(event, track, prompt, time, None) of what happened."""
        if found.tracker_id is None or not len(found) or self._trigger is None:
            return []
        ways = self._trigger.trigger(found)
        events = [
            (name, int(found.tracker_id[k]), prompts[int(k)], time_s, None)
            for name, crossed in zip(("crossed_in", "crossed_out"), ways, strict=True)
            for k in np.flatnonzero(crossed)
        ]
        self._in += int(ways[0].sum())
        self._out += int(ways[1].sum())
        return list(events)

    def restart(self) -> list[tuple[str, int, str, float, float | None]]:
        """Nothing is remembered of a track but on which side it was."""
        return []

    def counts(self) -> dict[str, Any]:
        return {"in": self._in, "out": self._out}


class Zones:
    """The zones of one camera.

    Set on the event loop, updated in the run's thread.

    Args:
        stream: Name of the stream.
    """

    def __init__(self, stream: str) -> None:
        self.rev = 1
        self._stream = stream
        self._zones: tuple[Zone, ...] = ()
        self._shapes: list[_Area | _Line] = []
        self._size: tuple[int, int] | None = None
        self._segment = 0
        self._lock = threading.Lock()

    @property
    def zones(self) -> list[Zone]:
        """As they were set."""
        with self._lock:
            return list(self._zones)

    def replace(self, zones: Sequence[Zone], base_rev: int | None) -> None:
        """Take other zones; one that stays as it was goes on counting.

        Args:
            zones: All of them.
            base_rev: The revision that the change was made from; None: of any.

        Raises:
            ConflictError: it is not the present one.
            UsageError: there are too many, or two of one name.
        """
        names = [zone.name for zone in zones]
        if len(names) > MAX_ZONES:
            raise UsageError(f"a camera has at most {MAX_ZONES} zones")
        if len(set(names)) < len(names):
            raise UsageError("two zones have the same name: give each its own")
        with self._lock:
            if base_rev is not None and base_rev != self.rev:
                raise ConflictError(f"the zones have changed since revision {base_rev}")
            kept = {shape.zone: shape for shape in self._shapes}
            self._zones = tuple(zones)
            self._shapes = [kept.get(z) or _shape(z) for z in zones if z.kind != "look"]
            self._size = None
            self.rev += 1

    def counts(self) -> dict[str, Any] | None:
        """By zone name, or None where there are no zones."""
        with self._lock:
            return {s.zone.name: s.counts() for s in self._shapes} if self._shapes else None

    def looked(self, result: FrameResult) -> FrameResult:
        """The result without what lies outside of the areas where to look; see `looking.within`."""
        return looking.within(result, [zone for zone in self.zones if zone.kind == "look"])

    def update(self, result: FrameResult) -> list[Event]:
        """Take the next result of the stream; returns what happened."""
        looked = self.looked(result)
        with self._lock:
            if not self._shapes:
                return []
            return self._update(looked)

    def _update(self, result: FrameResult) -> list[Event]:
        found = result.instances
        events: list[Event] = []
        if result.frame.segment != self._segment:
            self._segment = result.frame.segment
            for shape in self._shapes:
                events += self._events(shape, shape.restart())
        fresh = found.size != self._size
        self._size = found.size
        for shape in self._shapes:
            if fresh:
                shape.fit(found.size)
            detections, prompts = _tracked(result, shape.zone.prompts)
            events += self._events(shape, shape.update(detections, prompts, result.frame.time_s))
        return events

    def _events(
        self, shape: _Area | _Line, happened: list[tuple[str, int, str, float, float | None]]
    ) -> list[Event]:
        return [
            Event(event, self._stream, shape.zone.name, prompt, track, round(time_s, 3), seconds)
            for event, track, prompt, time_s, seconds in happened
        ]


def _shape(zone: Zone) -> _Area | _Line:
    return _Area(zone) if zone.kind == "area" else _Line(zone)


def _pixels(zone: Zone, size: tuple[int, int]) -> NDArray[np.int64]:
    """(P, 2) int64, x y in pixels of a frame of (height, width)."""
    return np.rint(np.array(zone.points) * (size[1], size[0])).astype(np.int64)


def _tracked(result: FrameResult, wanted: Sequence[str]) -> tuple[sv.Detections, list[str]]:
    """The regions with a track id, of these prompts (none: of all), and their prompts' texts."""
    import supervision as sv  # noqa: PLC0415 (it takes a second to import)

    found, texts = result.instances, result.prompts.texts
    ids = found.track_ids
    if ids is None:
        return sv.Detections.empty(), []
    kept = [
        k
        for k, prompt in enumerate(found.prompt_ids.tolist())
        if ids[k] > 0 and (not wanted or texts[prompt] in wanted)
    ]
    detections = sv.Detections(
        xyxy=found.boxes[kept].reshape(-1, 4),
        class_id=found.prompt_ids[kept].astype(int),
        tracker_id=ids[kept].astype(int),
    )
    return detections, [texts[found.prompt_ids[k]] for k in kept]
