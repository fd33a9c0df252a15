"""The tree of coordinate frames from `/tf` and `/tf_static`, without tf2.

A transform is looked up at the stamp of an image, between the two that were received around it; the
newest one is never taken for one of another time.
"""

from __future__ import annotations

import bisect
import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.depth import Transform, quaternion

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Patience", "TransformError", "TransformTree"]

_KEPT_NS: Final = 10 * 10**9
"""How long transforms are kept: as tf2 does."""
_DEEPEST: Final = 100
_WAIT_S: Final = 0.2
"""How long a transform that is still on its way is waited for."""
_AGAIN_S: Final = 1.0
"""After a wait in vain the next one is this much later."""
_POLL_S: Final = 0.005


class TransformError(Exception):
    """Two frames are not connected at this time; the message says where the chain ends."""


class Patience:
    """Whether the next look-up waits: what is missing for long must not delay every result."""

    def __init__(self) -> None:
        self._again_s = -math.inf

    def wait_s(self) -> float:
        """How long the next look-up waits, seconds."""
        return 0.0 if time.monotonic() < self._again_s else _WAIT_S

    def ended(self, *, found: bool) -> None:
        """Take the outcome of a look-up that waited."""
        self._again_s = -math.inf if found else time.monotonic() + _AGAIN_S


@dataclass(slots=True)
class _Joint:
    """A frame in its parent over time."""

    parent: str
    static: bool
    stamps_ns: list[int] = field(default_factory=list)
    poses: list[Transform] = field(default_factory=list)

    def add(self, stamp_ns: int, pose: Transform) -> None:
        if self.static:
            self.stamps_ns, self.poses = [stamp_ns], [pose]
            return
        if self.stamps_ns and stamp_ns < self.stamps_ns[-1] - _KEPT_NS:  # the clock was reset
            self.stamps_ns, self.poses = [], []
        k = bisect.bisect(self.stamps_ns, stamp_ns)
        self.stamps_ns.insert(k, stamp_ns)
        self.poses.insert(k, pose)
        old = bisect.bisect(self.stamps_ns, self.stamps_ns[-1] - _KEPT_NS)
        del self.stamps_ns[:old], self.poses[:old]

    def at(self, stamp_ns: int, name: str) -> Transform:
        if self.static:
            return self.poses[0]
        k = bisect.bisect_left(self.stamps_ns, stamp_ns)
        if k < len(self.stamps_ns) and self.stamps_ns[k] == stamp_ns:
            return self.poses[k]
        if not 0 < k < len(self.stamps_ns):
            off_ms = (stamp_ns - self.stamps_ns[-1 if k else 0]) / 1e6
            when = "after the last" if off_ms > 0 else "before the first"
            raise TransformError(f"the image is {abs(off_ms):.0f} ms {when} transform of {name!r}")
        before_ns, after_ns = self.stamps_ns[k - 1 : k + 1]
        share = (stamp_ns - before_ns) / (after_ns - before_ns)
        return _between(self.poses[k - 1], self.poses[k], share)


class TransformTree:
    """Frames and their parents; any thread may add and look up."""

    def __init__(self) -> None:
        self.refill: Callable[[], None] | None = None
        """Takes what has arrived, where no other thread does."""
        self._joints: dict[str, _Joint] = {}
        self._changed = threading.Condition()

    def add(self, message: Any, *, static: bool) -> None:
        """Take a tf2_msgs/TFMessage of any backend; a transform that is none is left out."""
        with self._changed:
            for one in message.transforms:
                t, q = one.transform.translation, one.transform.rotation
                try:
                    pose = Transform.of((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
                except ValueError:
                    continue
                child, parent = one.child_frame_id.lstrip("/"), one.header.frame_id.lstrip("/")
                joint = self._joints.get(child)
                if joint is None or joint.parent != parent or joint.static != static:
                    joint = self._joints[child] = _Joint(parent, static)
                stamp = one.header.stamp
                joint.add(stamp.sec * 10**9 + stamp.nanosec, pose)
            self._changed.notify_all()

    def look_up(
        self, target: str, source: str, stamp_ns: int, patience: Patience | None = None
    ) -> Transform:
        """The transform from a source frame to a target frame at a time.

        Args:
            target: Name of the frame that points are wanted in.
            source: Name of the frame that they are in.
            stamp_ns: The time, as headers have it.
            patience: Waits for transforms that are still on their way, but not where the frames
                are not connected at all; None never waits.

        Raises:
            TransformError: there is none.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        failure = TransformError("no transform")

        def found() -> Transform | None:
            nonlocal failure
            try:
                return self._found(target, source, stamp_ns)
            except TransformError as error:
                failure = error
                return None

        with self._changed:
            transform = found()
            if transform is None and patience is not None and self._connected(target, source):
                wait_s = patience.wait_s()
                transform = self._waited(found, wait_s)
                if wait_s:
                    patience.ended(found=transform is not None)
            if transform is None:
                raise failure
            return transform

    def _waited(self, found: Callable[[], Transform | None], wait_s: float) -> Transform | None:
        if self.refill is None:
            return self._changed.wait_for(found, wait_s)
        end_s = time.monotonic() + wait_s
        while (transform := found()) is None and time.monotonic() < end_s:
            time.sleep(_POLL_S)
            self.refill()
        return transform

    def _found(self, target: str, source: str, stamp_ns: int) -> Transform:
        up, down = self._line(source), self._line(target)
        common = next((name for name in up if name in down), None)
        if common is None:
            raise TransformError(
                f"tf does not connect {source!r} ({' < '.join(up)}) and {target!r}"
                f" ({' < '.join(down)})"
            )
        to_common = self._chain(up[: up.index(common)], stamp_ns)
        to_target = _inverse(self._chain(down[: down.index(common)], stamp_ns))
        return _product(to_target, to_common)

    def _connected(self, target: str, source: str) -> bool:
        return not set(self._line(target)).isdisjoint(self._line(source))

    def _line(self, name: str) -> list[str]:
        """A frame and its ancestors."""
        line = [name]
        while name in self._joints and len(line) < _DEEPEST:  # a broken tree may have a circle
            name = self._joints[name].parent
            line.append(name)
        return line

    def _chain(self, names: list[str], stamp_ns: int) -> Transform:
        """From the first of these frames to the parent of the last."""
        made = Transform(np.eye(3), np.zeros(3))
        for name in names:
            made = _product(self._joints[name].at(stamp_ns, name), made)
        return made


def _product(second: Transform, first: Transform) -> Transform:
    return Transform(
        second.rotation @ first.rotation, second.rotation @ first.translation + second.translation
    )


def _inverse(one: Transform) -> Transform:
    return Transform(one.rotation.T, -one.rotation.T @ one.translation)


def _between(a: Transform, b: Transform, share: float) -> Transform:
    """Linear in the translation, along the great circle in the rotation (slerp)."""
    p, q = np.array(quaternion(a.rotation)), np.array(quaternion(b.rotation))
    q = q if p @ q >= 0 else -q  # the shorter way round
    angle = np.arccos(min(1.0, float(p @ q)))
    if angle > 1e-6:
        q = (np.sin((1 - share) * angle) * p + np.sin(share * angle) * q) / np.sin(angle)
    moved = (1 - share) * a.translation + share * b.translation
    return Transform.of(moved.tolist(), q.tolist())
