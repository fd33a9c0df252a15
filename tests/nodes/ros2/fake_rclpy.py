"""An rclpy within one process, as strict as the real one about names, types, QoS and states.

Signatures, callback order and refusals follow rclpy's sources (Jazzy). Executors run callbacks in
the calling thread. `install` puts it and its messages where `import rclpy` finds them.
"""

import contextlib
import enum
import itertools
import sys
import time
import types
import typing

import fake_messages
from fake_graph import (
    GRAPH,
    WORLD,
    CallbackGroup,
    Context,
    DurabilityPolicy,
    ExternalShutdownException,
    GuardCondition,
    HistoryPolicy,
    InvalidHandle,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
    QoSOverridingOptions,
    QoSPolicyKind,
    QoSProfile,
    RCLError,
    ReliabilityPolicy,
    init,
    ok,
    try_shutdown,
)
from fake_node import (
    Clock,
    ClockType,
    Node,
    Parameter,
    PublisherEventCallbacks,
    SubscriptionEventCallbacks,
)

SignalHandlerOptions = enum.IntEnum("SignalHandlerOptions", "NO SIGINT SIGTERM ALL", start=0)
TransitionCallbackReturn = enum.IntEnum("TransitionCallbackReturn", "SUCCESS FAILURE ERROR")


class LifecycleState(typing.NamedTuple):
    label: str
    state_id: int


def create_node(node_name, **options):
    return Node(node_name, **options)


# -- lifecycle ----------------------------------------------------------------------------------

STEPS = {
    "configure": ({"unconfigured"}, "inactive"), "activate": ({"inactive"}, "active"),
    "deactivate": ({"active"}, "inactive"), "cleanup": ({"inactive"}, "unconfigured"),
    "shutdown": ({"unconfigured", "inactive", "active"}, "finalized"),
}  # fmt: skip


class LifecycleNode(Node):
    def __init__(self, node_name, *, enable_communication_interface=True, **options):
        super().__init__(node_name, **options)
        self.label, self.transitions = "unconfigured", []

    def on_activate(self, state):
        return TransitionCallbackReturn.SUCCESS

    on_configure = on_deactivate = on_cleanup = on_shutdown = on_error = on_activate

    def _change(self, step):
        before, after = STEPS[step]
        if self.label not in before:
            raise RCLError(f"transition {step} is not registered from {self.label}")
        state = LifecycleState(self.label, 0)
        outcome = self._call(getattr(self, f"on_{step}"), state)
        if outcome == TransitionCallbackReturn.SUCCESS:
            self.label = after
        elif outcome == TransitionCallbackReturn.ERROR:
            done = self._call(self.on_error, state) == TransitionCallbackReturn.SUCCESS
            self.label = "unconfigured" if done else "finalized"
        self.transitions.append(self.label)
        return outcome

    @staticmethod
    def _call(callback, state):
        try:
            outcome = callback(state)
        except Exception:  # noqa: BLE001 (rclpy swallows it in just this way)
            return TransitionCallbackReturn.ERROR
        assert isinstance(outcome, TransitionCallbackReturn), "a transition returned nothing"
        return outcome

    def trigger_configure(self):
        return self._change("configure")

    def trigger_activate(self):
        return self._change("activate")

    def trigger_deactivate(self):
        return self._change("deactivate")

    def trigger_cleanup(self):
        return self._change("cleanup")

    def trigger_shutdown(self):
        return self._change("shutdown")


# -- executors ----------------------------------------------------------------------------------


class SingleThreadedExecutor:
    def __init__(self, *, context=None):
        self._nodes, self._over, self._context = [], False, context or WORLD

    def add_node(self, node):
        assert node.context is self._context, "a node of another context"
        self._nodes.append(node)
        return True

    def spin_once(self, timeout_sec=None):
        if not self._context.alive:
            raise ExternalShutdownException
        for node in self._nodes:
            for writer in list(node._publishers):
                if writer.alive and writer.callback and writer.matched != len(writer.matches()):
                    writer.matched = len(writer.matches())
                    writer.callback(writer.matched)
            for timer in list(node._timers):
                if time.monotonic() >= timer.due_s:
                    timer.due_s = time.monotonic() + timer.period_s
                    timer.callback()
            for reader in list(node._subscriptions):
                if not reader.group.can_execute(reader):
                    continue
                report(reader)
                while reader.alive and reader.waiting:
                    reader.callback(reader.waiting.popleft())
        time.sleep(min(0.01, timeout_sec or 0.01))

    def spin(self):
        while self._context.alive and not self._over:
            self.spin_once()

    def shutdown(self, timeout_sec=None):
        self._over = True
        return True


def report(reader):
    """Call back what has happened to a subscription: publishers, refused ones, lost messages."""
    event = types.SimpleNamespace
    events = reader.events
    if events is None or not reader.alive:
        return
    if events.matched and len(reader.matches()) != reader.publishers:
        reader.publishers = len(reader.matches())
        events.matched(event(current_count=reader.publishers))
    refused = reader.unmatched()
    if events.incompatible_qos and len(refused) > reader.refused:
        reader.refused = len(refused)
        events.incompatible_qos(event(last_policy_kind=QoSPolicyKind[refused[-1]]))
    if events.message_lost and reader.lost:
        events.message_lost(event(total_count_change=reader.lost))
        reader.lost = 0


class MultiThreadedExecutor(SingleThreadedExecutor):
    def __init__(self, num_threads=None, *, context=None):
        assert num_threads is None or num_threads > 1
        super().__init__(context=context)

    def shutdown(self, timeout_sec=None, *, wait_for_threads=True):
        return super().shutdown(timeout_sec)


class WaitSet:
    """Polls; what happened to a subscription is called back while it waits for it."""

    def __init__(self, subscriptions, guards, timers, clients, services, events, context):
        self._sizes, self._context = (subscriptions, guards), context

    def clear_entities(self):
        self._readers, self._guards = [], []

    def add_subscription(self, handle):
        self._readers.append(handle.reader)

    def add_guard_condition(self, handle):
        self._guards.append(handle)

    def wait(self, timeout_ns):
        assert (len(self._readers), len(self._guards)) == self._sizes
        end_s = time.monotonic() + timeout_ns / 1e9
        while time.monotonic() < end_s and not any(one.triggered for one in self._guards):
            for reader in self._readers:
                with contextlib.suppress(InvalidHandle):  # of a context that was shut down
                    report(reader)
            if self.get_ready_entities("subscription"):
                break
            time.sleep(0.002)

    def get_ready_entities(self, kind):
        assert kind == "subscription"
        return [reader.handle.pointer for reader in self._readers if reader.waiting]


implementation_singleton = types.SimpleNamespace(
    rclpy_implementation=types.SimpleNamespace(WaitSet=WaitSet)
)


CONTENT = {
    "rclpy": (init, try_shutdown, ok, create_node),
    "rclpy.callback_groups": (CallbackGroup,),
    "rclpy.clock": (Clock, ClockType),
    "rclpy.context": (Context,),
    "rclpy.event_handler": (PublisherEventCallbacks, SubscriptionEventCallbacks),
    "rclpy.exceptions": (
        InvalidHandle,
        InvalidParameterTypeException,
        InvalidParameterValueException,
        ParameterUninitializedException,
    ),
    "rclpy.executors": (ExternalShutdownException, SingleThreadedExecutor, MultiThreadedExecutor),
    "rclpy.guard_condition": (GuardCondition,),
    "rclpy.impl": (),
    "rclpy.lifecycle": (LifecycleNode, LifecycleState, TransitionCallbackReturn),
    "rclpy.node": (Node,),
    "rclpy.parameter": (Parameter,),
    "rclpy.qos": (QoSProfile, ReliabilityPolicy, DurabilityPolicy, HistoryPolicy, QoSPolicyKind),
    "rclpy.qos_overriding_options": (QoSOverridingOptions,),
    "rclpy.signals": (SignalHandlerOptions,),
}


def install(patch):
    """Make `import rclpy` and its messages find the fake, for as long as `patch` lasts."""
    made = {name: types.ModuleType(name) for name in CONTENT}
    for name, content in CONTENT.items():
        for one in content:
            setattr(made[name], one.__name__, one)
        parent, _, short = name.rpartition(".")
        if parent:
            setattr(made[parent], short, made[name])
    made["rclpy.impl"].implementation_singleton = implementation_singleton
    patch.setitem(sys.modules, "rclpy.impl.implementation_singleton", implementation_singleton)
    made["rclpy.callback_groups"].MutuallyExclusiveCallbackGroup = CallbackGroup
    for name, module in itertools.chain(made.items(), fake_messages.modules().items()):
        patch.setitem(sys.modules, name, module)
    WORLD.alive = False
    GRAPH.clear()
