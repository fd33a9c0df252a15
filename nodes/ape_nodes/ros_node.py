"""The ROS 2 node `ape` over rclpy: a thin lifecycle shell around the ROS-free pipeline.

configure loads the model, activate starts the pipeline and subscribes, deactivate stops it and
keeps the model, cleanup frees it. Written for Humble to Jazzy: no matched events and no
BEST_AVAILABLE, which Humble lacks.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import threading
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, SetParametersResult
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import String
from std_srvs.srv import SetBool

from ape_nodes.push import PushSource, SharedModel
from ape_nodes.ros_messages import Encoder, ResultPublisher, as_array, frame_of
from ape_nodes.ros_parameters import PARAMETERS, read_prompts
from ape_nodes.ros_topics import INPUTS, OUTPUTS, TopicSpec
from ape_stream.errors import ApeStreamError, SourceError
from ape_stream.pipeline import Pipeline
from ape_stream.plugins import load, make

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ApeNode", "main"]

LOOK_EVERY_S = 0.5
SET_PROMPTS_TIMEOUT_S = 30.0


def _message(name: str) -> type:
    package, kind, short = name.split("/")
    found: type = getattr(importlib.import_module(f"{package}.{kind}"), short)
    return found


def _qos(spec: TopicSpec, *, reliable: bool | None = None) -> QoSProfile:
    firm = spec.reliable if reliable is None else reliable
    return QoSProfile(
        depth=spec.depth,
        reliability=ReliabilityPolicy.RELIABLE if firm else ReliabilityPolicy.BEST_EFFORT,
        durability=(
            DurabilityPolicy.TRANSIENT_LOCAL if spec.latched else DurabilityPolicy.VOLATILE
        ),
    )


class ApeNode(LifecycleNode):  # type: ignore[misc]
    """One camera's node.

    Args:
        name: Node name.
        model: The model that nodes of this process share.
        options: Keyword arguments of rclpy's node.
    """

    def __init__(self, name: str, model: SharedModel, **options: Any) -> None:
        super().__init__(name, **options)
        self._model = model
        self._index = 0
        self._enabled = True
        self._outputs: dict[str, Any] = {}
        self._subscription: Any = None
        self._source: PushSource | None = None
        self._pipeline: Pipeline | None = None
        self._thread: threading.Thread | None = None
        self._publisher: ResultPublisher | None = None
        for parameter in PARAMETERS:
            self.declare_parameter(parameter.name, parameter.default, _descriptor(parameter))
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_subscription(String, "~/prompts", self._on_prompts, _qos(INPUTS[2]))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(LOOK_EVERY_S, self._look)
        self.create_timer(1.0, self._diagnose)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    # -- lifecycle ------------------------------------------------------------------------

    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and open the outputs."""
        try:
            self._model.load(
                lambda: make(
                    "perceivers",
                    self._value("perceiver"),
                    options={"model": self._value("model"), "device": self._value("device")},
                )
            )
        except ApeStreamError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        for spec in OUTPUTS:
            self._outputs[spec.name] = self.create_publisher(
                _message(spec.type),
                f"~/{spec.name}",
                _qos(spec),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the pipeline; pictures are taken once somebody listens."""
        outcome = super().on_activate(state)
        encoder = Encoder(_message, as_array, self._value("mask_encoding"))
        self._publisher = ResultPublisher(encoder, self)
        self._source = PushSource(self.get_fully_qualified_name())
        try:
            self._pipeline = Pipeline(
                [self._source],
                self._model.view(),
                read_prompts(self._value("prompts"), self._value("prompt_thresholds")),
                tracker=load("trackers", self._value("tracker")),
                threshold=self._value("score_threshold"),
            )
            self._pipeline.__enter__()
        except ApeStreamError as error:
            self.get_logger().error(str(error))
            self._pipeline = None
            return TransitionCallbackReturn.FAILURE
        self._thread = threading.Thread(target=self._publish_all, name="ape publish", daemon=True)
        self._thread.start()
        return outcome

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the pipeline and keep the model: the next activate is quick."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and close the outputs."""
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs."""
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured."""
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def _close(self) -> None:
        self._stop()
        for publisher in self._outputs.values():
            self.destroy_publisher(publisher)
        self._outputs.clear()
        self._model.release()

    def _stop(self) -> None:
        self._unsubscribe()
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.stop()
            if self._thread is not None:
                self._thread.join(5.0)
            pipeline.__exit__(None, None, None)

    # -- pictures in, results out -----------------------------------------------------------

    def _look(self) -> None:
        """Subscribe while an active node's output has a reader, and only then."""
        wanted = self._pipeline is not None and self._enabled
        wanted = wanted and any(p.get_subscription_count() for p in self._outputs.values())
        if wanted and self._subscription is None:
            packed = self._value("image_transport") == "compressed"
            spec = INPUTS[1] if packed else INPUTS[0]
            topic = self.resolve_topic_name("image") + ("/compressed" if packed else "")
            qos = _qos(spec, reliable=self._value("image_reliability") == "reliable")
            self._subscription = self.create_subscription(
                _message(spec.type), topic, self._on_image, qos
            )
            self.get_logger().info(f"somebody listens: subscribed to {topic}")
        elif not wanted:
            self._unsubscribe()

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
            self.get_logger().info("nobody listens: unsubscribed")

    def _on_image(self, message: Any) -> None:
        if self._source is None:
            return
        try:
            self._source.push(frame_of(message, self._index, self._source.name))
        except SourceError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
        self._index += 1

    def _publish_all(self) -> None:
        pipeline, publisher = self._pipeline, self._publisher
        if pipeline is None or publisher is None:
            return
        try:
            for result in pipeline:
                publisher.publish(result)
        except ApeStreamError as error:
            self.get_logger().error(str(error))

    def has_readers(self, name: str) -> bool:
        """Whether anybody listens to this output."""
        return bool(self._outputs[name].get_subscription_count() > 0)

    def publish(self, name: str, message: Any) -> None:
        """Publish on this output."""
        self._outputs[name].publish(message)

    # -- wishes -----------------------------------------------------------------------------

    def _on_parameters(self, parameters: Sequence[Any]) -> SetParametersResult:
        """Take all of them or none, with the reason."""
        given = {parameter.name: parameter.value for parameter in parameters}
        try:
            self._apply(given)
        except (ApeStreamError, TimeoutError) as error:
            return SetParametersResult(successful=False, reason=str(error) or "timed out")
        return SetParametersResult(successful=True)

    def _apply(self, given: dict[str, Any]) -> None:
        for parameter in PARAMETERS:
            if parameter.name in given:
                parameter.check(given[parameter.name])
        live = ("prompts", "prompt_thresholds", "score_threshold")
        if not any(name in given for name in live):
            return
        now = {name: given.get(name, self._known(name)) for name in live}
        wanted = read_prompts(
            now["prompts"], now["prompt_thresholds"], default=now["score_threshold"]
        )
        if self._pipeline is not None:
            self._pipeline.set_prompts(wanted, SET_PROMPTS_TIMEOUT_S)

    def _known(self, name: str) -> Any:
        """The value in force, or the default while parameters are still being declared."""
        default = next(parameter.default for parameter in PARAMETERS if parameter.name == name)
        return self._value(name) if self.has_parameter(name) else default

    def _on_prompts(self, message: Any) -> None:
        words = [word.strip() for word in message.data.split(",") if word.strip()]
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
        if self._pipeline is None:
            return
        stats = self._pipeline.stats()
        values: dict[str, Any] = {
            "subscribed": self._subscription is not None,
            "state": self._pipeline.outcome,
        }
        for stream in stats.streams.values():
            values |= {
                "published": stream.published,
                "dropped": dict(stream.dropped),
                "publish_hz": round(stream.publish_hz, 2),
                "age_ms_p50": stream.age_ms_p50,
                "age_ms_p95": stream.age_ms_p95,
            }
        values["prompts"] = ", ".join(self._pipeline.prompts.texts)
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK,
            name=self.get_fully_qualified_name(),
            message=self._pipeline.outcome,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _descriptor(parameter: Any) -> ParameterDescriptor:
    made = ParameterDescriptor(description=parameter.what, read_only=parameter.read_only)
    if parameter.span is not None:
        low, high = parameter.span
        made.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    made.dynamic_typing = isinstance(parameter.default, list) and not parameter.default
    return made


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="ape_node")
    parser.add_argument("--params", default="", help="YAML file of parameters")
    parser.add_argument("--autostart", action="store_true", help="configure and activate at once")
    parser.add_argument("--cameras", nargs="*", default=[], help="image topics; a node for each")
    own, rest = list(argv), []
    if "--ros-args" in own:
        place = own.index("--ros-args")
        own, rest = own[:place], own[place:]
    parsed = parser.parse_args(own)
    if parsed.params:
        rest += ["--ros-args", "--params-file", parsed.params]
    return parsed, rest


def main() -> None:
    """Run the node, or one node per camera with one model for all."""
    parsed, ros_arguments = _arguments(sys.argv[1:])
    model = SharedModel()
    rclpy.init(args=ros_arguments)  # Humble's is no context manager
    try:
        executor = MultiThreadedExecutor()
        for node in _nodes(parsed.cameras, model):
            executor.add_node(node)
            if parsed.autostart:
                node.trigger_configure()
                node.trigger_activate()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


def _nodes(cameras: Sequence[str], model: SharedModel) -> list[ApeNode]:
    if not cameras:
        return [ApeNode("ape", model)]
    made = []
    for topic in cameras:
        place = topic.strip("/").replace("/", "_") or "camera"
        remap = ["--ros-args", "-r", f"image:={topic}"]
        made.append(ApeNode("ape", model, namespace=place, cli_args=remap))
    return made
