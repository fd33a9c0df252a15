"""The ROS 2 node `ape` over rclpy: a thin lifecycle shell around the ROS-free pipeline.

configure loads the model, activate starts the pipeline and subscribes, deactivate stops it and
keeps the model, cleanup frees it. Written for Jazzy and newer.

Three threads meet here. Lifecycle, parameters, services and timers run one at a time in the node's
default callback group; images have a group of their own, so that they flow while prompts are
embedded; results are published by a thread that belongs to the active state. The model never runs
in a thread of the executor.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_srvs.srv import SetBool

from ape_nodes.ros2.diagnostics import Health, run_values
from ape_nodes.ros2.messages import ResultPublisher, frame_of
from ape_nodes.ros2.parameters import DEFAULTS, PARAMETERS, PROMPT_PARAMETERS, check, wanted
from ape_nodes.ros2.rclpy_node.backend import message_class, rclpy_encoder, rclpy_qos
from ape_nodes.ros2.topics import DIAGNOSTICS, INPUTS, OUTPUTS
from ape_stream.errors import ApeStreamError, ConfigError, SourceError
from ape_stream.pipeline import Pipeline
from ape_stream.plugins import load, make, option_names
from ape_stream.sources.push import PushSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_nodes.ros2.rclpy_node.shared_perceiver import SharedModel

__all__ = ["ApeNode"]

LOOK_EVERY_S: Final = 0.5
"""Between looks that no reader's coming or going brings about: a run may have failed."""
SET_PROMPTS_TIMEOUT_S: Final = 30.0
_JOIN_S: Final = 5.0
_IMAGE, _COMPRESSED, _PROMPTS = INPUTS


class ApeNode(LifecycleNode):  # type: ignore[misc]
    """One camera's node.

    Args:
        name: Node name.
        model: The model that nodes of this process share; the first to configure chooses it.
        options: Keyword arguments of rclpy's node.
    """

    def __init__(self, name: str, model: SharedModel, **options: Any) -> None:
        super().__init__(name, **options)
        self._model = model
        self._holds_model = False
        self._state_name = "unconfigured"
        self._trouble = ""
        self._enabled = True
        self._arrived = self._skipped = self._unreadable = 0
        self._due_s = 0.0
        self._outputs: dict[str, Any] = {}
        self._subscription: Any = None
        self._source: PushSource | None = None
        self._pipeline: Pipeline | None = None
        self._thread: threading.Thread | None = None
        self._image_group = MutuallyExclusiveCallbackGroup()
        self._encoder = rclpy_encoder()
        for parameter in PARAMETERS:
            self.declare_parameter(parameter.name, parameter.default, _descriptor(parameter))
        self.add_on_set_parameters_callback(self._on_parameters)
        for service in self.services:
            if service.srv_name.endswith("/change_state"):
                service.callback = _answering(service.callback)
        self.create_service(SetBool, "~/enable", self._on_enable)
        # A volatile writer does not reach a transient local reader; the other one hears it.
        silent = SubscriptionEventCallbacks(incompatible_qos=lambda _: None)
        for latched, events in ((True, silent), (False, None)):
            self.create_subscription(
                message_class(_PROMPTS.type),
                _PROMPTS.name,
                self._on_prompts,
                rclpy_qos(_PROMPTS, latched=latched),
                event_callbacks=events,
            )
        self._diagnostics = self.create_publisher(
            message_class(DIAGNOSTICS.type), DIAGNOSTICS.name, rclpy_qos(DIAGNOSTICS)
        )
        self.create_timer(LOOK_EVERY_S, self._look)
        self.create_timer(1.0, self._diagnose)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    # -- lifecycle ------------------------------------------------------------------------

    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and open the outputs."""
        if not self._tried(self._configure):
            self.close()
            return TransitionCallbackReturn.FAILURE
        self._state_name = "inactive"
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the pipeline; pictures are taken once somebody listens."""
        if not self._tried(self._activate):
            self.stop()
            return TransitionCallbackReturn.FAILURE
        self._state_name = "active"
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the pipeline and keep the model: the next activate is quick."""
        self.stop()
        self._state_name = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and close the outputs."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs."""
        self.close()
        self._state_name = "finalized"
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def _tried(self, work: Callable[[], None]) -> bool:
        """Whether it worked; rclpy swallows exceptions of transitions, so say what happened."""
        self._trouble = ""
        try:
            work()
        except ApeStreamError as error:
            self._trouble = str(error)
        except Exception as error:  # noqa: BLE001 (a node stays and tells; it does not die)
            self._trouble = f"{type(error).__name__}: {error}"
        if self._trouble:
            self.get_logger().error(self._trouble)
        return not self._trouble

    def _configure(self) -> None:
        check({parameter.name: self._value(parameter.name) for parameter in PARAMETERS})
        self._wanted({})
        name = self._value("perceiver")
        options = self._options("perceivers", name, model="model", device="device", dtype="dtype")
        self._model.load(lambda: make("perceivers", name, options=options))
        self._holds_model = True
        self._encoder = rclpy_encoder(self._value("mask_encoding"))
        for spec in OUTPUTS:
            if spec.name.endswith("/compressed") and not self._value("publish_compressed"):
                continue
            self._outputs[spec.name] = self.create_publisher(
                message_class(spec.type),
                f"~/{spec.name}",
                rclpy_qos(spec),
                event_callbacks=PublisherEventCallbacks(matched=lambda _: self._look()),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )

    def _options(self, group: str, plugin: str, **parameters: str) -> dict[str, Any]:
        """Options for a plugin (option=parameter): those it has, and those that were set.

        One that was set and that the plugin lacks is passed as well, so that it is refused.
        """
        known = option_names(load(group, plugin), positional=0)
        return {
            option: self._value(name)
            for option, name in parameters.items()
            if option in known or self._value(name) != DEFAULTS[name]
        }

    def _activate(self) -> None:
        tracker = self._value("tracker")
        options = self._options("trackers", tracker, min_iou="iou_track")
        source = PushSource(self.get_fully_qualified_name())
        pipeline = Pipeline(
            [source],
            self._model.view(),
            self._wanted({}),
            tracker=lambda: make("trackers", tracker, options=options),
        )
        pipeline.__enter__()
        self._source, self._pipeline = source, pipeline
        self._thread = threading.Thread(
            target=self._publish_all, args=(pipeline, source), name="ape publish", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the pipeline, with a frame underway or without; the model stays."""
        self._unsubscribe()
        pipeline, self._pipeline, self._source = self._pipeline, None, None
        if pipeline is not None:
            pipeline.stop()
            if self._thread is not None:
                self._thread.join(_JOIN_S)
            pipeline.__exit__(None, None, None)

    def close(self) -> None:
        """Stop, close the outputs and let go of the model."""
        self.stop()
        for publisher in self._outputs.values():
            self.destroy_publisher(publisher)
        self._outputs.clear()
        if self._holds_model:
            self._holds_model = False
            self._model.release()
        self._state_name = "unconfigured"

    # -- pictures in, results out -----------------------------------------------------------

    def _look(self) -> None:
        """Subscribe while an active node's output has a reader, and only then."""
        if self._pipeline is not None and self._trouble:  # the run failed: say so by the state
            self.trigger_deactivate()
            return
        needed = self._pipeline is not None and self._enabled
        needed = needed and any(p.get_subscription_count() for p in self._outputs.values())
        if needed and self._subscription is None:
            self._subscribe()
        elif not needed:
            self._unsubscribe()

    def _subscribe(self) -> None:
        packed = self._value("image_transport") == "compressed"
        spec = _COMPRESSED if packed else _IMAGE
        topic = self._image_topic(packed=packed)
        self._subscription = self.create_subscription(
            message_class(spec.type),
            topic,
            self._on_image,
            rclpy_qos(spec, reliable=self._value("image_reliability") == "reliable"),
            callback_group=self._image_group,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self.get_logger().info(f"somebody listens: subscribed to {topic}")

    def _image_topic(self, *, packed: bool) -> str:
        """Where pictures come from; a remapping of `image` holds for `image/compressed` too."""
        topic: str = self.resolve_topic_name(_IMAGE.name)
        if not packed:
            return topic
        own: str = self.resolve_topic_name(_COMPRESSED.name)
        remapped = own != self.resolve_topic_name(_COMPRESSED.name, only_expand=True)
        return own if remapped else f"{topic}/compressed"

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
            if self.context.ok():  # after Ctrl-C there is no /rosout to log to
                self.get_logger().info("nobody listens: unsubscribed")

    def _on_image(self, message: Any) -> None:
        source, index = self._source, self._arrived
        self._arrived += 1
        if source is None or not self._is_due():
            self._skipped += 1
            return
        try:
            source.put(frame_of(message, index, source.name))
        except SourceError as error:
            self._unreadable += 1
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)

    def _is_due(self) -> bool:
        """Whether `max_rate` lets a picture through now; it holds on average, despite jitter."""
        rate, now_s = self._value("max_rate"), time.monotonic()
        if rate > 0 and now_s < self._due_s:
            return False
        self._due_s = max(now_s, self._due_s + (1 / rate if rate > 0 else 0.0))
        return True

    def _publish_all(self, pipeline: Pipeline, source: PushSource) -> None:
        publisher = ResultPublisher(self._encoder, self)
        try:
            for result in pipeline:
                publisher.publish(result)
        except Exception as error:  # noqa: BLE001 (a thread has nobody above to raise to)
            if self.context.ok():  # after Ctrl-C there is nothing to publish to
                self._trouble = str(error) or type(error).__name__
                self.get_logger().error(self._trouble)
        finally:
            source.__exit__(None, None, None)  # an image callback must not wait for ever

    def has_readers(self, name: str) -> bool:
        """Whether anybody listens to this output."""
        publisher = self._outputs.get(name)
        return publisher is not None and publisher.get_subscription_count() > 0

    def publish(self, name: str, message: Any) -> None:
        """Publish on this output."""
        self._outputs[name].publish(message)

    # -- wishes -----------------------------------------------------------------------------

    def _on_parameters(self, parameters: Sequence[Any]) -> SetParametersResult:
        """Take all of them or none, with the reason."""
        given = {parameter.name: parameter.value for parameter in parameters}
        try:
            check(given)
            if not given.keys().isdisjoint(PROMPT_PARAMETERS):
                self._look_for(self._wanted(given))
        except ApeStreamError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _wanted(self, given: dict[str, Any]) -> Any:
        """The prompts that the parameters mean, those `given` taken for the present ones."""
        return wanted({name: given.get(name, self._value(name)) for name in PROMPT_PARAMETERS})

    def _look_for(self, prompts: Any) -> None:
        pipeline = self._pipeline
        if pipeline is None:
            return
        try:
            pipeline.set_prompts(prompts, SET_PROMPTS_TIMEOUT_S)
        except TimeoutError as error:
            with suppress(TimeoutError):  # what is refused must not come in force later
                pipeline.set_prompts(pipeline.prompts, 0.0)
            patience = f"{SET_PROMPTS_TIMEOUT_S:g} s"
            raise ConfigError(f"the model did not take the prompts within {patience}") from error

    def _on_prompts(self, message: Any) -> None:
        words = [word.strip() for word in message.data.split(",") if word.strip()]
        if words == list(self._value("prompts")):  # it comes over both subscriptions
            return
        parameter = Parameter("prompts", value=words or [""])
        outcome = self.set_parameters([parameter])[0]
        if not outcome.successful:
            self.get_logger().error(f"prompts refused: {outcome.reason}")

    def _on_enable(self, request: Any, response: Any) -> Any:
        self._enabled = bool(request.data)
        self._look()
        response.success = True
        response.message = "enabled" if self._enabled else "disabled"
        return response

    def _diagnose(self) -> None:
        pipeline = self._pipeline
        values: dict[str, Any] = {
            "state": self._state_name,
            "enabled": self._enabled,
            "subscribed": self._subscription is not None,
            "prompts": ", ".join(self._value("prompts")),
            "arrived": self._arrived,
            "skipped": self._skipped,
            "unreadable": self._unreadable,
        }
        if pipeline is not None:
            values |= {"prompts": ", ".join(pipeline.prompts.texts)} | run_values(pipeline.stats())
        health = Health("ERROR" if self._trouble else "OK", self._trouble or self._state_name)
        stamp_ns = self.get_clock().now().nanoseconds
        name = self.get_fully_qualified_name()
        self._diagnostics.publish(self._encoder.diagnostics(stamp_ns, name, health, values))


def _answering(change: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Jazzy's rclpy dies of a transition that the state does not have (ros2/rclpy#1209)."""

    def answer(request: Any, response: Any) -> Any:
        try:
            return change(request, response)
        except RuntimeError:  # rclpy's RCLError; rcl has logged it
            response.success = False
            return response

    return answer


def _descriptor(parameter: Any) -> ParameterDescriptor:
    made = ParameterDescriptor(description=parameter.what, read_only=parameter.read_only)
    if parameter.choices is not None:
        made.additional_constraints = f"one of {', '.join(parameter.choices)}"
    if parameter.span is not None:
        low, high = parameter.span
        made.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    return made
