"""The node of the fake rclpy: names, parameters and entities, with rclpy's own refusals."""

import concurrent.futures
import contextlib
import enum
import inspect
import sys
import threading
import time

import fake_messages
from fake_graph import (
    GRAPH,
    WORLD,
    CallbackGroup,
    HistoryPolicy,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterNotDeclaredException,
    Publisher,
    QoSProfile,
    RCLError,
    ReliabilityPolicy,
    Subscription,
    read_arguments,
)


class Parameter:
    Type = enum.Enum("Type", {"NOT_SET": 0, "BOOL": 1, "INTEGER": 2, "DOUBLE": 3, "STRING": 4,
                              "BYTE_ARRAY": 5, "BOOL_ARRAY": 6, "INTEGER_ARRAY": 7,
                              "DOUBLE_ARRAY": 8, "STRING_ARRAY": 9})  # fmt: skip

    def __init__(self, name, type_=None, value=None):
        self.name, self.value = name, value
        self.type_ = kind_of(value) if type_ is None else type_
        if self.type_ is not kind_of(value):
            raise ValueError(f"type {type_} and value {value!r} do not agree")


def kind_of(value):
    plain = {type(None): "NOT_SET", bool: "BOOL", int: "INTEGER", float: "DOUBLE", str: "STRING"}
    if type(value) in plain:
        return Parameter.Type[plain[type(value)]]
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{value!r} cannot be a parameter")
    for kind in (bytes, bool, int, float, str):  # of nothing, all are bytes: as in rclpy
        if all(isinstance(one, kind) for one in value):
            names = {bytes: "BYTE", bool: "BOOL", int: "INTEGER", float: "DOUBLE", str: "STRING"}
            return Parameter.Type[f"{names[kind]}_ARRAY"]
    raise TypeError(f"{value!r} holds values of several types")


class Time:
    def __init__(self, nanoseconds):
        self.nanoseconds = nanoseconds


class ClockType(enum.IntEnum):
    ROS_TIME = 1
    SYSTEM_TIME = 2
    STEADY_TIME = 3


class Clock:
    def __init__(self, *, clock_type=ClockType.SYSTEM_TIME):
        self.clock_type = clock_type

    def now(self):
        return Time(time.time_ns())


class Logger:
    def __init__(self, context):
        self.lines, self._context = [], context

    def _log(self, level, text, throttle_duration_sec=None, once=False):
        assert isinstance(text, str)
        assert self._context.alive, "logged after the shutdown"
        self.lines.append((level, text))

    def info(self, text, **options):
        self._log("info", text, **options)

    def warning(self, text, **options):
        self._log("warning", text, **options)

    def error(self, text, **options):
        self._log("error", text, **options)


class Timer:
    def __init__(self, period_s, callback, group, *, stands):
        self.period_s, self.callback, self.group = period_s, callback, group
        # The time of a simulation that is paused stands still.
        self.due_s = float("inf") if stands else time.monotonic() + period_s


class PublisherEventCallbacks:
    def __init__(self, *, matched=None):
        assert callable(matched)
        self.matched = matched


class SubscriptionEventCallbacks:
    def __init__(self, *, incompatible_qos=None, message_lost=None, matched=None):
        assert callable(incompatible_qos or message_lost)
        self.incompatible_qos, self.message_lost = incompatible_qos, message_lost
        self.matched = matched


class Service:
    def __init__(self, srv_type, srv_name, callback, group):
        assert srv_type.Request
        self.srv_type, self.srv_name, self.callback = srv_type, srv_name, callback
        self.group = group


SERVICES = []  # of all nodes


class Client:
    """Calls a service in a thread of its own, one at a time for each callback group."""

    def __init__(self, srv_type, srv_name):
        self._type, self._name = srv_type, srv_name

    def _found(self):
        return [one for one in SERVICES if one.srv_name == self._name]

    def service_is_ready(self):
        return bool(self._found())

    def call_async(self, request):
        (service,) = self._found()
        assert service.srv_type is self._type
        assert isinstance(request, self._type.Request)
        future = concurrent.futures.Future()

        def answer():
            with service.group.lock:
                future.set_result(service.callback(request, self._type.Response()))

        threading.Thread(target=answer).start()
        return future


class Node:
    def __init__(
        self, node_name, *, context=None, cli_args=None, namespace=None,
        use_global_arguments=True, enable_rosout=True, start_parameter_services=True,
        parameter_overrides=None, allow_undeclared_parameters=False,
        automatically_declare_parameters_from_overrides=False, enable_logger_service=False,
    ):  # fmt: skip
        self.context = context or WORLD
        if not self.context.alive:
            raise RCLError("cannot create node: the context is not valid")
        own, values = read_arguments(cli_args or [])
        remaps, more = read_arguments(self.context.arguments) if use_global_arguments else ({}, {})
        self._remaps = {**remaps, **own}
        self._overrides = {**more, **values, **{p.name: p.value for p in parameter_overrides or ()}}
        self._name = self._remaps.pop("__node", node_name)
        assert self._name.isidentifier(), self._name
        self._namespace = "/" + self._remaps.pop("__ns", namespace or "").strip("/")
        self._parameters, self._descriptors, self._on_set = {}, {}, []
        self._publishers, self._subscriptions, self._timers, self._services = [], [], [], []
        self.default_callback_group = CallbackGroup()
        self._logger = Logger(self.context)

    def get_name(self):
        return self._name

    def get_namespace(self):
        return self._namespace

    def get_fully_qualified_name(self):
        return f"{self._namespace.rstrip('/')}/{self._name}"

    def get_logger(self):
        return self._logger

    def get_clock(self):
        return Clock()

    def resolve_topic_name(self, topic, *, only_expand=False):
        def full(name):
            if name.startswith("~"):
                return self.get_fully_qualified_name() + name[1:]
            return name if name.startswith("/") else f"{self._namespace.rstrip('/')}/{name}"

        assert topic, "an empty topic name"
        rules = {full(old): full(new) for old, new in self._remaps.items()}
        return full(topic) if only_expand else rules.get(full(topic), full(topic))

    # -- parameters -----------------------------------------------------------------------

    def declare_parameter(self, name, value=None, descriptor=None, ignore_override=False):
        if name in self._parameters:
            raise ParameterAlreadyDeclaredException(name)
        kind = sys.modules["rcl_interfaces.msg"].ParameterDescriptor
        descriptor = kind() if descriptor is None else descriptor
        assert isinstance(descriptor, kind), "the descriptor is no ParameterDescriptor"
        descriptor.type = kind_of(value).value
        given = Parameter(name, value=self._overrides.get(name, value))
        if given.type_ is not kind_of(value) and not descriptor.dynamic_typing:
            raise InvalidParameterTypeException(f"{name}: {kind_of(value)} wanted, {given.type_}")
        result = self._accept([given], {name: descriptor}, declaring=True)
        if not result.successful:
            raise InvalidParameterValueException(f"{name}: {result.reason}")
        return given

    def add_on_set_parameters_callback(self, callback):
        self._on_set.insert(0, callback)

    def has_parameter(self, name):
        return name in self._parameters

    def get_parameter(self, name):
        if name not in self._parameters:
            raise ParameterNotDeclaredException(name)
        return self._parameters[name]

    def describe_parameter(self, name):
        return self._descriptors[name]

    def set_parameters(self, parameters):
        return [self.set_parameters_atomically([parameter]) for parameter in parameters]

    def set_parameters_atomically(self, parameters):
        for parameter in parameters:
            if not isinstance(parameter, Parameter):
                raise TypeError("parameter must be a Parameter")
            if parameter.name not in self._parameters:
                raise ParameterNotDeclaredException(parameter.name)
        return self._accept(parameters, self._descriptors, declaring=False)

    def _accept(self, parameters, descriptors, *, declaring):
        kind = sys.modules["rcl_interfaces.msg"].SetParametersResult
        for parameter in parameters:
            reason = refusal(parameter, descriptors[parameter.name], declaring=declaring)
            if reason:
                return kind(successful=False, reason=reason)
        for callback in self._on_set:
            result = callback(parameters)
            assert isinstance(result, kind), "the callback returned no SetParametersResult"
            if not result.successful:
                return result
        for parameter in parameters:
            self._parameters[parameter.name] = parameter
            self._descriptors[parameter.name] = descriptors[parameter.name]
        return kind(successful=True)

    def _override_qos(self, entity, topic, qos, options):
        for policy in options.policy_kinds if options else ():
            key, name = policy.name.lower(), f"qos_overrides.{topic}.{entity}.{policy.name.lower()}"
            value = getattr(qos, key)
            value = value.name.lower() if isinstance(value, enum.Enum) else value
            descriptor = sys.modules["rcl_interfaces.msg"].ParameterDescriptor(read_only=True)
            with contextlib.suppress(ParameterAlreadyDeclaredException):
                self.declare_parameter(name, value, descriptor)
            chosen = self.get_parameter(name).value
            enums = {"history": HistoryPolicy, "reliability": ReliabilityPolicy}
            setattr(qos, key, enums[key][chosen.upper()] if key in enums else chosen)

    # -- entities -------------------------------------------------------------------------

    def create_publisher(self, msg_type, topic, qos_profile, *, callback_group=None,
                         event_callbacks=None, qos_overriding_options=None):  # fmt: skip
        qos = qos_profile if isinstance(qos_profile, QoSProfile) else QoSProfile(depth=qos_profile)
        final = self.resolve_topic_name(topic)
        self._override_qos("publisher", final, qos, qos_overriding_options)
        assert issubclass(msg_type, fake_messages.Message)
        assert event_callbacks is None or isinstance(event_callbacks, PublisherEventCallbacks)
        matched = event_callbacks and event_callbacks.matched
        self._publishers.append(Publisher(self, msg_type, final, qos, matched))
        return self._publishers[-1]

    def create_subscription(
        self,
        msg_type,
        topic,
        callback,
        qos_profile,
        *,
        callback_group=None,
        event_callbacks=None,
        qos_overriding_options=None,
        raw=False,
    ):
        qos = qos_profile if isinstance(qos_profile, QoSProfile) else QoSProfile(depth=qos_profile)
        final = self.resolve_topic_name(topic)
        self._override_qos("subscription", final, qos, qos_overriding_options)
        assert issubclass(msg_type, fake_messages.Message)
        assert callback_group is None or isinstance(callback_group, CallbackGroup)
        assert event_callbacks is None or isinstance(event_callbacks, SubscriptionEventCallbacks)
        inspect.signature(callback).bind(object())  # rclpy asks this, so a builtin may not do
        group = callback_group or self.default_callback_group
        made = Subscription(self, msg_type, final, qos, callback, group)
        made.events = event_callbacks
        self._subscriptions.append(made)
        return self._subscriptions[-1]

    def create_service(
        self, srv_type, srv_name, callback, *, qos_profile=None, callback_group=None
    ):
        group = callback_group or self.default_callback_group
        made = Service(srv_type, self.resolve_topic_name(srv_name), callback, group)
        self._services.append(made)
        SERVICES.append(made)
        return made

    def create_client(self, srv_type, srv_name):
        return Client(srv_type, self.resolve_topic_name(srv_name))

    @property
    def services(self):
        yield from self._services

    def create_timer(self, timer_period_sec, callback, callback_group=None, clock=None,
                     autostart=True):  # fmt: skip
        group = callback_group or self.default_callback_group
        simulated = self._overrides.get("use_sim_time", False)
        stands = simulated and (clock is None or clock.clock_type is not ClockType.STEADY_TIME)
        self._timers.append(Timer(float(timer_period_sec), callback, group, stands=stands))
        return self._timers[-1]

    def destroy_publisher(self, publisher):
        publisher.alive = False
        self._publishers.remove(publisher)
        GRAPH.remove(publisher)
        return True

    def destroy_subscription(self, subscription):
        subscription.alive = False
        self._subscriptions.remove(subscription)
        GRAPH.remove(subscription)
        return True

    def destroy_node(self):
        for publisher in list(self._publishers):
            self.destroy_publisher(publisher)
        for subscription in list(self._subscriptions):
            self.destroy_subscription(subscription)
        self._timers.clear()
        for service in self._services:
            SERVICES.remove(service)
        self._services.clear()


def refusal(parameter, descriptor, *, declaring):
    if descriptor.read_only and not declaring:
        return f"Trying to set a read-only parameter: {parameter.name}."
    if parameter.type_.value != descriptor.type and not descriptor.dynamic_typing:
        return f"Wrong parameter type for {parameter.name}"
    for span in descriptor.floating_point_range:
        if not span.from_value <= parameter.value <= span.to_value:
            return f"{parameter.name} is out of range"
    return ""
