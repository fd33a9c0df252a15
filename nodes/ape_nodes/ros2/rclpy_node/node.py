"""The ROS 2 node `ape` over rclpy: a thin lifecycle shell around the ROS-free pipeline.

configure loads the model, activate starts the pipeline and subscribes, deactivate stops it and
keeps the model, cleanup frees it. Written for Jazzy and newer.

Lifecycle, parameters, services and timers run one at a time in the node's default callback group;
`~/detect` has a group of its own: it is the one callback in which the model runs. Images are
received in a thread that lives as long as their subscription (see `receiver`), and results are
published in one that lives as long as the active state.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from ape_nodes.ros2.diagnostics import Health, run_values
from ape_nodes.ros2.parameters import (
    DEFAULTS,
    PARAMETERS,
    PROMPT_PARAMETERS,
    check,
    in_force,
    prompt_set,
)
from ape_nodes.ros2.publisher import ResultPublisher
from ape_nodes.ros2.rclpy_node.backend import (
    guard_transition,
    message_class,
    rclpy_descriptor,
    rclpy_encoder,
    rclpy_qos,
)
from ape_nodes.ros2.rclpy_node.detect import DetectService
from ape_nodes.ros2.rclpy_node.image_input import ImageInput
from ape_nodes.ros2.rclpy_node.outputs import Outputs
from ape_nodes.ros2.space.results import Placement
from ape_nodes.ros2.topics import DIAGNOSTICS, IN_FORCE, INPUTS
from ape_stream.errors import ApeStreamError, ConfigError
from ape_stream.pipeline import Pipeline
from ape_stream.plugins import load, make, option_names
from ape_stream.sources.push import PushSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ape_stream.pipeline.shared_perceiver import SharedPerceiver
    from ape_stream.types import PromptSet

__all__ = ["ApeNode"]

POLL_S: Final = 0.5
"""How often the node checks whether its run failed; readers are noticed by events."""
SET_PROMPTS_TIMEOUT_S: Final = 30.0
_JOIN_S: Final = 5.0
_PLACEMENT: Final = ("boxes_3d", "voxel_size", "target_frame")
_PROMPTS: Final = INPUTS[-1]


class ApeNode(LifecycleNode):  # type: ignore[misc]
    """One camera's node.

    Args:
        name: Node name.
        shared: The model that the nodes of this process share; the first to configure chooses it.
        options: Keyword arguments of rclpy's node.
    """

    def __init__(self, name: str, shared: SharedPerceiver, **options: Any) -> None:
        super().__init__(name, **options)
        self.perceiver = shared
        self.state_name = "unconfigured"
        self.last_error = ""
        self.images = ImageInput(self, lambda: self._source)
        self._uses_perceiver = False
        self._enabled = True
        # Readers come and go in threads of the executor while another thread stops the node.
        self._subscribing = threading.Lock()
        self._outputs = Outputs(self, self._update_subscription)
        self._source: PushSource | None = None
        self._pipeline: Pipeline | None = None
        self._thread: threading.Thread | None = None
        self.placement = Placement(transforms=self.images.transforms)
        self.encoder = rclpy_encoder()  # for diagnostics; configured again in `_configure`
        for parameter in PARAMETERS:
            self.declare_parameter(parameter.name, parameter.default, rclpy_descriptor(parameter))
        self.add_on_set_parameters_callback(self._on_parameters)
        for service in self.services:
            if service.srv_name.endswith("/change_state"):
                service.callback = guard_transition(service.callback)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.detect = DetectService(self)
        # A volatile writer (`ros2 topic pub`) does not match a transient local reader, so there are
        # two; rclpy would warn of the mismatch that the first one has with it.
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
        self._in_force = self.create_publisher(
            message_class(IN_FORCE.type), f"~/{IN_FORCE.name}", rclpy_qos(IN_FORCE)
        )
        # Readers are noticed by the matched event of each output; the timer is for failed runs.
        # Steady: under use_sim_time a paused /clock must not stop the supervision.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(POLL_S, self._update_subscription, clock=steady)
        self.create_timer(1.0, self._diagnose, clock=steady)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    @property
    def is_subscribed(self) -> bool:
        """Whether the node is subscribed to the image now."""
        return self.images.is_subscribed

    @property
    def output_names(self) -> list[str]:
        """The output topics that exist, relative to the node."""
        return self._outputs.names

    @property
    def pipeline(self) -> Pipeline | None:
        """The running pipeline; None unless the node is active."""
        return self._pipeline

    # -- lifecycle ------------------------------------------------------------------------

    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and open the outputs."""
        if not self._succeeds(self._configure):
            self.close()
            return TransitionCallbackReturn.FAILURE
        self.state_name = "inactive"
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the pipeline; it gets images once an output has a reader."""
        if not self._succeeds(self._activate):
            self.stop()
            return TransitionCallbackReturn.FAILURE
        self.state_name = "active"
        topic = self.images.topic(self._value("image_transport"))
        self.get_logger().info(f"active: {topic} is read once an output has a reader")
        self._answer(self.prompt_set({}), "")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the pipeline and keep the model: the next activate is quick."""
        self.stop()
        self.state_name = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and close the outputs."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Stop everything."""
        self.close()
        self.state_name = "finalized"
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def _succeeds(self, work: Callable[[], None]) -> bool:
        """Run the work of a transition; False, with `last_error` set and logged, if it failed.

        rclpy swallows the exceptions of transitions.
        """
        self.last_error = ""
        try:
            work()
        except ApeStreamError as error:
            self.last_error = str(error)
        except Exception as error:  # noqa: BLE001 (the node reports it and lives on)
            self.last_error = f"{type(error).__name__}: {error}"
        if self.last_error:
            self.get_logger().error(self.last_error)
        return not self.last_error

    def _configure(self) -> None:
        # Values from a file or the command line were declared before `_on_parameters` was added.
        check({parameter.name: self._value(parameter.name) for parameter in PARAMETERS})
        self.prompt_set({})
        name = self._value("perceiver")
        options = self._options("perceivers", name, model="model", device="device", dtype="dtype")
        if canvas := self._value("canvas"):  # 0: the model's own
            options["canvas"] = canvas
        if self.perceiver.loaded is None:  # the cameras of a process share it
            self.get_logger().info(f"loading the model {self._value('model')}")
        self.perceiver.load(lambda: make("perceivers", name, options=options))
        self._uses_perceiver = True
        self.perceiver.warm_up(self.prompt_set({}))
        self.encoder = rclpy_encoder(self._value("mask_encoding"))
        self.encoder.model_threshold = self.perceiver.threshold
        self._outputs.open()

    def _options(self, group: str, plugin: str, **parameters: str) -> dict[str, Any]:
        """Options for a plugin (option=parameter): those it has, and those that were set.

        An option that was set but that the plugin lacks is passed as well, so that it is refused.
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
        self._place({})
        source = PushSource(self.get_fully_qualified_name())
        publisher = ResultPublisher(self.encoder, self, self.placement, self._value("label_source"))
        pipeline = Pipeline(
            [source],
            self.perceiver.handle(),
            self.prompt_set({}),
            tracker=lambda: make("trackers", tracker, options=options),
            sinks=[publisher],
        )
        pipeline.__enter__()  # left in `stop`: it lives as long as the active state
        self._source, self._pipeline = source, pipeline
        self._thread = threading.Thread(
            target=self._publish_all, args=(pipeline, source), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the pipeline, even while a frame is processed; the model stays loaded."""
        # Taken away first: callbacks of other threads then see no pipeline, and do not subscribe.
        with self._subscribing:
            pipeline, self._pipeline, self._source = self._pipeline, None, None
            self.images.unsubscribe("the node is not active any more")
        if pipeline is not None:
            # Stopped first, which ends the loop of the thread; then both are waited for.
            pipeline.stop()
            if self._thread is not None:
                self._thread.join(_JOIN_S)
            pipeline.__exit__(None, None, None)

    def close(self) -> None:
        """Stop, close the outputs and release the model."""
        self.state_name = "unconfigured"  # before the model goes: `~/detect` then refuses
        self.detect.cancel()
        self.stop()
        self._outputs.close()
        if self._uses_perceiver:
            self._uses_perceiver = False
            self.perceiver.release()

    # -- images in, results out -------------------------------------------------------------

    def _update_subscription(self) -> None:
        """Subscribe while an active node's output has a reader, and only then."""
        if self._pipeline is not None and self.last_error:  # the run failed: the state shows it
            self.trigger_deactivate()
            return
        with self._subscribing:
            if self._pipeline is None:  # `stop` has unsubscribed
                return
            if not self._enabled:
                self.images.unsubscribe("the node is paused")
            elif self._outputs.is_read:
                self.images.subscribe()
            else:
                self.images.unsubscribe("no output has a reader")

    def _publish_all(self, pipeline: Pipeline, source: PushSource) -> None:
        try:
            for _ in pipeline:  # its sink publishes
                pass
        except Exception as error:  # noqa: BLE001 (a thread has nobody above to raise to)
            if self.context.ok():  # else the failure is that the context was shut down
                self.last_error = str(error) or type(error).__name__
                self.get_logger().error(self.last_error)
        finally:
            source.__exit__(None, None, None)  # else an image callback could wait for ever

    def has_readers(self, name: str) -> bool:
        """Whether anybody is subscribed to this output."""
        return self._outputs.has_readers(name)

    def publish(self, name: str, message: Any) -> None:
        """Publish on this output."""
        self._outputs.publish(name, message)

    # -- parameters, services, diagnostics --------------------------------------------------

    def _on_parameters(self, parameters: Sequence[Any]) -> SetParametersResult:
        """Take all of them or none, with the reason."""
        given = {parameter.name: parameter.value for parameter in parameters}
        try:
            check(given)
            # Applied before rclpy stores the values: if the model refuses, none of them is stored.
            if not given.keys().isdisjoint(PROMPT_PARAMETERS):
                prompts = self.prompt_set(given)
                self._apply_prompts(prompts)
                self._answer(prompts, "")
        except ApeStreamError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._place(given)
        return SetParametersResult(successful=True)

    def _place(self, given: dict[str, Any]) -> None:
        """Take where results in space are sent; the running publisher uses it at once."""
        now = {name: given.get(name, self._value(name)) for name in _PLACEMENT}
        self.placement.boxes = now["boxes_3d"]
        self.placement.voxel_m = now["voxel_size"]
        self.placement.target_frame = now["target_frame"]

    def prompt_set(self, given: Mapping[str, Any]) -> PromptSet:
        """The prompt set of the parameters; values in `given` replace the present ones."""
        return prompt_set({name: given.get(name, self._value(name)) for name in PROMPT_PARAMETERS})

    def _apply_prompts(self, prompts: PromptSet) -> None:
        pipeline = self._pipeline
        if pipeline is None:
            return
        try:
            pipeline.set_prompts(prompts, SET_PROMPTS_TIMEOUT_S)
        except TimeoutError as error:
            with suppress(TimeoutError):  # what is refused now must not become active later
                pipeline.set_prompts(pipeline.prompts, 0.0)
            limit = f"{SET_PROMPTS_TIMEOUT_S:g} s"
            raise ConfigError(f"the model did not take the prompts within {limit}") from error

    def _answer(self, prompts: PromptSet, refused: str) -> None:
        """Publish what is in force, for whoever asked for prompts."""
        text = in_force(prompts, refused)
        self._in_force.publish(message_class(IN_FORCE.type)(data=text))

    def _on_prompts(self, message: Any) -> None:
        texts = [text.strip() for text in message.data.split(",") if text.strip()]
        if texts == list(self._value("prompts")):  # it arrives over both subscriptions
            return
        # An empty text is refused like any other wrong value, and the reason is published.
        parameter = Parameter("prompts", value=texts or [""])
        outcome = self.set_parameters([parameter])[0]
        if not outcome.successful:
            self._answer(self.prompt_set({}), outcome.reason)
            self.get_logger().error(f"prompts refused: {outcome.reason}")

    def _on_enable(self, request: Any, response: Any) -> Any:
        self._enabled = bool(request.data)
        self._update_subscription()
        response.success = True
        response.message = "enabled" if self._enabled else "disabled"
        return response

    def _diagnose(self) -> None:
        pipeline = self._pipeline
        values: dict[str, Any] = {
            "state": self.state_name,
            "enabled": self._enabled,
            "subscribed": self.is_subscribed,
            "prompts": ", ".join(self._value("prompts")),
            **self.images.values(),
        }
        if pipeline is not None:
            values |= {"prompts": ", ".join(pipeline.prompts.texts)} | run_values(pipeline.stats())
        stamp_ns = self.get_clock().now().nanoseconds
        name = self.get_fully_qualified_name()
        health = self._health()
        report = self.encoder.diagnostics(stamp_ns, name, health, values)
        if self.context.ok():
            self._diagnostics.publish(report)

    def _health(self) -> Health:
        if self.last_error:
            return Health("ERROR", self.last_error)
        warning = self.images.health()
        if warning is None and self.placement.problem:
            warning = Health("WARN", self.placement.problem)
        return warning or Health("OK", self.state_name)
