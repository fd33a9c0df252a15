"""What a node subscribes to while its outputs have readers: images, and depth where asked for."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from rclpy.event_handler import SubscriptionEventCallbacks

from ape_nodes.ros2.health import DepthWatch, InputWatch
from ape_nodes.ros2.messages import frame_of
from ape_nodes.ros2.rclpy_node.backend import has_message, rclpy_qos
from ape_nodes.ros2.rclpy_node.receiver import Receiver
from ape_nodes.ros2.space.depth import NOT_PAIRED, DepthPairs, DepthReader, stamp_ns_of
from ape_nodes.ros2.space.tf import TransformTree
from ape_nodes.ros2.topics import INPUTS
from ape_nodes.ros2.video import VideoDecoder
from ape_stream.errors import SourceError
from ape_stream.values.frame import DeferredFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ape_nodes.ros2.diagnostics import Health
    from ape_nodes.ros2.rclpy_node.take import Take
    from ape_nodes.ros2.topics import TopicSpec
    from ape_stream.types import Frame

__all__ = ["FrameSink", "ImageInput", "RateLimit"]

_SPECS: Final = {spec.name: spec for spec in INPUTS}
_TRANSPORTS: Final = {
    "raw": "image", "compressed": "image/compressed", "ffmpeg": "image/ffmpeg",
    "foxglove": "image/video",
}  # fmt: skip
_FORMS: Final = ("image/compressed", "image/ffmpeg", "image/video", "depth/compressedDepth")
"""Other forms of the topic before their slash, below that topic."""
_DEPTHS: Final = {"image": "depth", "compressed": "depth/compressedDepth", "points": "points"}


class RateLimit:
    """Admits images at a rate that holds on average, even where their times jitter."""

    def __init__(self) -> None:
        self._due_s = 0.0

    def admits(self, rate: float) -> bool:
        """Whether an image is admitted now.

        Args:
            rate: Images per second; 0 admits all.
        """
        now_s = time.monotonic()
        if rate > 0 and now_s < self._due_s:
            return False
        # Steps of one period from the last due time, not from now: so a late image is made up for.
        self._due_s = max(now_s, self._due_s + (1 / rate if rate > 0 else 0.0))
        return True


class FrameSink(Protocol):
    """Where frames go."""

    @property
    def name(self) -> str:
        """The name of their stream."""

    def put(self, frame: Frame) -> object:
        """Take a frame, which may be deferred."""


class ImageInput:
    """The subscriptions of a node, and the frames that are made of what arrives.

    Args:
        node: A node with the parameters of `ape_nodes.ros2.parameters`.
        source: Where frames go; None while the node is not active.
        transforms: Takes what `/tf` says; None: a tree of its own.
        paced: False: every image is taken, `max_rate` does not hold.
    """

    def __init__(
        self,
        node: Any,
        source: Callable[[], FrameSink | None],
        transforms: TransformTree | None = None,
        *,
        paced: bool = True,
    ) -> None:
        self.watch = InputWatch()
        self.transforms = TransformTree() if transforms is None else transforms
        self._paced = paced
        self._node = node
        self._source = source
        self._rate_limit = RateLimit()
        self._receiver: Receiver | None = None
        self._take: Take | None = None
        self._pairs: DepthPairs[Any] | None = None
        self._depth = DepthReader(self.transforms)
        self._video: VideoDecoder | None = None
        self._depth_watch = DepthWatch()

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _is_due(self) -> bool:
        return not self._paced or self._rate_limit.admits(self._value("max_rate"))

    @property
    def is_subscribed(self) -> bool:
        """Whether the node is subscribed to the image now."""
        return self._receiver is not None

    @property
    def depth_problem(self) -> str:
        """Why the last frame got no depth; empty if it did."""
        return self._depth.problem

    # -- subscriptions ---------------------------------------------------------------------

    def subscribe(self) -> None:
        """Subscribe, unless that is done already."""
        if self._receiver is not None:
            return
        self._receiver = receiver = Receiver(self._node, self._put_overdue)
        transport = self._value("image_transport")
        topic = self.topic(transport)
        self._video = VideoDecoder() if transport in ("ffmpeg", "foxglove") else None
        if self._value("depth") != "none":
            self._subscribe_depth(receiver)
        self.watch.subscribed(topic, time.monotonic())
        spec = _SPECS[_TRANSPORTS[transport]]
        reliable = self._value("image_reliability") == "reliable"
        qos = rclpy_qos(spec, reliable=reliable)
        self._take = receiver.subscribe(
            spec.type, topic, self._on_image, qos, self._events(), self._on_damaged
        )
        receiver.start()
        self._log(f"an output has a reader: subscribed to {topic}")

    def _subscribe_depth(self, receiver: Receiver) -> None:
        kind = self._value("depth")
        self._pairs = DepthPairs(round(1e9 * self._value("depth_slop")))
        self._depth = DepthReader(self.transforms, rectified=self._value("rectified"))
        wanted: tuple[tuple[str, Callable[[Any], None]], ...] = (
            (_DEPTHS[kind], self._on_depth),
            ("camera_info", partial(self._on_info, "image")),
            ("depth/camera_info", partial(self._on_info, "depth")),
            ("/tf", partial(self._on_tf, static=False)),
            ("/tf_static", partial(self._on_tf, static=True)),
        )
        for name, callback in wanted:
            if (spec := _SPECS[name]) and self._exists(spec):
                topic = name if name.startswith("/") else self._resolved(name)
                events = self._depth_events() if name == _DEPTHS[kind] else None
                kept = rclpy_qos(spec)
                receiver.subscribe(spec.type, topic, callback, kept, events)

    def _exists(self, spec: TopicSpec) -> bool:
        if not has_message(spec.type):
            self._node.get_logger().warning(
                f"{spec.type} is not installed: {spec.name} is not read"
            )
            return False
        return True

    def _events(self) -> SubscriptionEventCallbacks:
        def lost(event: Any) -> None:
            # Not `total_count`, which begins again with each subscription.
            self.watch.lost += event.total_count_change

        def incompatible(event: Any) -> None:
            policy = event.last_policy_kind
            self.watch.incompatible = getattr(policy, "name", str(policy)).lower()

        def matched(event: Any) -> None:
            self.watch.publishers = event.current_count

        return SubscriptionEventCallbacks(
            message_lost=lost, incompatible_qos=incompatible, matched=matched
        )

    def _depth_events(self) -> SubscriptionEventCallbacks:
        def lost(event: Any) -> None:
            self.watch.depth_lost += event.total_count_change

        return SubscriptionEventCallbacks(message_lost=lost)

    def topic(self, transport: str) -> str:
        """The topic of the image; a remapping of `image` applies to its transports too."""
        return self._resolved(_TRANSPORTS[transport])

    def _resolved(self, name: str) -> str:
        own: str = self._node.resolve_topic_name(name)
        base, _, suffix = name.partition("/")
        # A rule for `image/compressed` itself goes before that for `image`.
        remapped = own != self._node.resolve_topic_name(name, only_expand=True)
        if name not in _FORMS or remapped:
            return own
        return f"{self._node.resolve_topic_name(base)}/{suffix}"

    def unsubscribe(self, reason: str) -> None:
        """End all subscriptions, unless there are none; the reason is logged."""
        if self._receiver is None:
            return
        self._receiver.end()
        self._receiver, self._take, self._pairs = None, None, None
        self.watch.unsubscribed()
        self._log(f"{reason}: unsubscribed")

    def _log(self, text: str) -> None:
        # A single call subscribes silently; after Ctrl-C there is no /rosout.
        if self._paced and self._node.context.ok():
            self._node.get_logger().info(text)

    # -- messages to frames ----------------------------------------------------------------

    def _on_image(self, message: Any) -> None:
        self.watch.arrived(time.monotonic())
        # Every packet of a video is needed for those that follow it.
        if self._video is not None:
            self._on_packet(message)
            return
        if not self._is_due():
            self.watch.skipped += 1
            return
        if self._pairs is None:
            self._put(message, None)
        else:
            self._put_all(self._pairs.add_image(stamp_ns_of(message), message))

    def _on_damaged(self, error: SourceError) -> None:
        self.watch.arrived(time.monotonic())
        self._refuse(error)

    def _on_depth(self, message: Any) -> None:
        if self._pairs is not None:
            self._put_all(self._pairs.add_depth(stamp_ns_of(message), message))

    def _put_overdue(self) -> None:
        if self._pairs is not None:
            self._put_all(self._pairs.overdue())

    def _on_info(self, role: str, message: Any) -> None:
        try:
            self._depth.take_info(message, role)
        except SourceError as error:
            self._depth.problem = str(error)

    def _on_tf(self, message: Any, *, static: bool) -> None:
        self.transforms.add(message, static=static)

    def _on_packet(self, message: Any) -> None:
        if self._video is None:
            return
        try:
            for decoded in self._video.decode(message):
                if self._is_due():
                    self._put(decoded, None)
                else:
                    self.watch.skipped += 1
        except SourceError as error:
            self._refuse(error)

    def _put_all(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        for message, depth in pairs:
            self._put(message, depth)

    def _put(self, message: Any, depth: Any) -> None:
        source = self._source()
        if source is None:
            self.watch.skipped += 1
            return
        # Decoded when the model takes it: of a fast camera most images are overtaken before.
        make = partial(self._made, message, depth, with_depth=self._pairs is not None)
        index, stamp_s = self.watch.received - 1, stamp_ns_of(message) / 1e9
        try:
            source.put(DeferredFrame.later(make, index, stamp_s, source.name, time.monotonic_ns()))
        except ValueError as error:
            self._refuse(error)

    def _made(self, message: Any, depth: Any, deferred: Frame, *, with_depth: bool) -> Frame:
        try:
            frame = frame_of(message, deferred.index, deferred.stream, deferred)
        except (SourceError, ValueError) as error:
            self._refuse(error)
            raise
        return self._depth.with_depth(frame, depth) if with_depth else frame

    def _refuse(self, error: Exception) -> None:
        self.watch.unreadable += 1
        self.watch.unreadable_reason = str(error)
        if self._node.context.ok():
            self._node.get_logger().warning(str(error), throttle_duration_sec=5.0)

    # -- health ----------------------------------------------------------------------------

    def values(self) -> dict[str, Any]:
        """Counts, for diagnostics."""
        values: dict[str, Any] = self.watch.values()
        if (take := self._take) is not None:
            values["taken_as"] = take.form
        if (pairs := self._pairs) is not None:
            values |= {"depth_paired": pairs.paired, "depth_unpaired": pairs.unpaired}
            values["depth_lost"] = self.watch.depth_lost
            if pairs.apart_ns is not None:
                values["depth_apart_ms"] = f"{pairs.apart_ns / 1e6:.1f}"
        return values

    def health(self) -> Health | None:
        """A warning, or None where all is well."""
        warning = self.watch.health(time.monotonic())
        if warning is not None or self._pairs is None:
            return warning
        problem = self._depth.problem  # of one image that is not paired the counts say enough
        return self._depth_watch.health(self._pairs, "" if problem == NOT_PAIRED else problem)
