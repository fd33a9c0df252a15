"""Receives the images of a node in a thread of its own, so that they cost the model little.

An executor of rclpy collects all entities of its nodes each time that one of them is ready, in
Python: at 30 images a second the lock of Python (GIL) was held for 45 % of the time by that alone.
The model takes this lock after every operation, so it waited hundreds of times an image. Here
only what is received is waited for, and images are taken without the lock (`take`).
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rclpy.callback_groups import CallbackGroup
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.qos_overriding_options import QoSOverridingOptions

from ape_nodes.ros2.rclpy_node.backend import message_class
from ape_nodes.ros2.rclpy_node.take import take_of
from ape_stream.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ape_nodes.ros2.rclpy_node.take import Take

__all__ = ["Receiver"]

_WAIT_NS: Final = 500_000_000
"""Longest wait, after which the thread checks whether the context was shut down."""
_JOIN_S: Final = 5.0


class _NoExecutor(CallbackGroup):  # type: ignore[misc]
    """The group of entities that executors leave alone."""

    def can_execute(self, _entity: Any) -> bool:
        return False


class _Subscribed(NamedTuple):
    """One subscription."""

    subscription: Any
    """rclpy's."""
    take: Take
    """Takes a message of it."""
    refused: Callable[[SourceError], None] | None
    """Takes the error of a message that cannot be read."""


class Receiver:
    """Subscriptions of a node and the thread that calls them back, one message at a time.

    Args:
        node: The node that subscribes; its executor does not see these subscriptions.
        each_turn: Called after each wait, which lasts half a second at most.
    """

    def __init__(self, node: Any, each_turn: Callable[[], None]) -> None:
        self._node = node
        self._each_turn = each_turn
        self._group = _NoExecutor()
        self._subscribed: list[_Subscribed] = []
        self._wake = GuardCondition(None, None, node.context)
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="ape-receiver", daemon=True)

    def subscribe(
        self,
        kind: str,
        topic: str,
        callback: Callable[[Any], None],
        qos: Any,
        events: Any = None,
        refused: Callable[[SourceError], None] | None = None,
    ) -> Take:
        """Add a subscription, before `start`.

        Args:
            kind: The ROS 2 type.
            topic: Name of the topic.
            callback: Takes a message.
            qos: Its QoS; parameters may override it.
            events: rclpy's `SubscriptionEventCallbacks`.
            refused: Takes the error of a message that cannot be read; None: it is logged.

        Returns:
            How its messages are taken.
        """
        made = self._node.create_subscription(
            message_class(kind),
            topic,
            callback,
            qos,
            callback_group=self._group,
            event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        take = take_of(kind, self._node.get_logger().warning)
        self._subscribed.append(_Subscribed(made, take, refused))
        return take

    def start(self) -> None:
        """Receive from now on."""
        self._thread.start()

    def end(self) -> None:
        """Unsubscribe; afterwards nothing is called back."""
        self._ended = True
        self._wake.trigger()
        if self._thread.ident is not None:  # started
            self._thread.join(_JOIN_S)
        for one in self._subscribed:
            self._node.destroy_subscription(one.subscription)
        self._wake.destroy()

    def _run(self) -> None:
        events = [event for one in self._subscribed for event in one.subscription.event_handlers]
        context = self._node.context
        try:
            with ExitStack() as used:  # what is in use is destroyed only after the thread's end
                handles = (one.subscription.handle for one in self._subscribed)
                for one in (context.handle, self._wake.handle, *handles, *events):
                    used.enter_context(one)
                sizes = (len(self._subscribed), 1, 0, 0, 0, len(events))
                wait_set = rclpy_implementation.WaitSet(*sizes, context.handle)
                while not self._ended and context.ok():
                    self._turn(wait_set, events)
        except RuntimeError as error:  # of rcl: the context was shut down, or the node destroyed
            if not self._ended and context.ok():
                self._node.get_logger().error(f"images are not received any more: {error}")

    def _turn(self, wait_set: Any, events: Iterable[Any]) -> None:
        """Wait until anything is ready, and call it back."""
        wait_set.clear_entities()
        wait_set.add_guard_condition(self._wake.handle)
        for one in self._subscribed:
            wait_set.add_subscription(one.subscription.handle)
        for event in events:
            event.add_to_wait_set(wait_set)
        wait_set.wait(_WAIT_NS)
        for event in events:
            if event.is_ready(wait_set) and (change := event.take_data()) is not None:
                event.callback(change)
        ready = set(wait_set.get_ready_entities("subscription"))
        for one in self._subscribed:
            if one.subscription.handle.pointer in ready and not self._ended:
                self._guarded(partial(self._take, one), one.subscription.topic_name)
        self._guarded(self._each_turn, "images that waited")

    @staticmethod
    def _take(one: _Subscribed) -> None:
        try:
            message = one.take(one.subscription)
        except SourceError as error:
            if one.refused is None:
                raise
            one.refused(error)
        else:
            if message is not None:
                one.subscription.callback(message)

    def _guarded(self, work: Callable[[], None], name: str) -> None:
        """Do some work; a failure is logged and ends nothing."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 (a thread has nobody above to raise to)
            if self._node.context.ok():
                text = f"{name}: a message was left out: {error!r}"
                self._node.get_logger().error(text, throttle_duration_sec=5.0)
