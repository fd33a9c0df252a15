"""The service `~/detect`: answers once what it was asked, and changes nothing that runs.

A call has the model between two images of the running pipeline, with its own prompts; there is no
tracker. It works in the states inactive and active.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from ape_nodes.ros2.messages import frame_of
from ape_nodes.ros2.rclpy_node.backend import has_message, message_class
from ape_nodes.ros2.rclpy_node.image_input import ImageInput
from ape_nodes.ros2.space.depth import DepthReader
from ape_nodes.ros2.space.results import SpaceMessages
from ape_nodes.ros2.space.tf import Patience
from ape_nodes.ros2.types import INTERFACES
from ape_stream.errors import ApeStreamError, ConfigError, SourceError, StoppedError
from ape_stream.result import FrameResult
from ape_stream.values.frame import DeferredFrame

if TYPE_CHECKING:
    from ape_nodes.ros2.space.results import Placement
    from ape_stream.types import Frame, PromptSet

__all__ = ["DetectService"]

_TYPE: Final = f"{INTERFACES}/srv/DetectObjects"
_TIMEOUT_S: Final = 5.0
"""How long a call waits for the camera where it does not say."""


class DetectService:
    """Serves `~/detect`, where the package of its type is installed.

    Calls are answered one at a time, in a callback group of their own.

    Args:
        node: An `ApeNode`.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._newest: _Newest | None = None
        self._ended = False
        if not has_message(_TYPE):
            node.get_logger().info(f"~/detect is left out: {INTERFACES} is not installed")
            return
        group = MutuallyExclusiveCallbackGroup()
        node.create_service(
            message_class(_TYPE), "~/detect", self._on_request, callback_group=group
        )

    def cancel(self) -> None:
        """End the wait of a call for its image."""
        if (newest := self._newest) is not None:
            newest.end()

    def end(self) -> None:
        """Cancel, and refuse further calls."""
        self._ended = True
        self.cancel()

    def _on_request(self, request: Any, response: Any) -> Any:
        try:
            self._answer(request, response)
        except (ApeStreamError, ValueError) as error:
            response.message = str(error)
        except Exception as error:  # noqa: BLE001 (it would end the executor and all its nodes)
            response.message = f"{type(error).__name__}: {error}"
        if not response.success and self._node.context.ok():
            self._node.get_logger().warning(f"~/detect: {response.message}")
        return response

    def _answer(self, request: Any, response: Any) -> None:
        node = self._node
        self._check_model()
        prompts = self._prompts(request)
        # The node's own is for diagnostics.
        placement = replace(node.placement, problem="", patience=Patience())
        if len(request.image.data):
            frame, problem = self._given(request)
        else:
            frame, problem = self._next(_seconds(request.timeout) or _TIMEOUT_S, placement)
        with node.perceiver.prepared(prompts) as perceiver:
            (found,) = perceiver.perceive([frame])
        # Numbered like the masks, so that boxes in the image and in space can be distinguished.
        numbered = found.with_track_ids(np.arange(1, len(found) + 1))
        self._fill(response, FrameResult(frame, numbered, prompts), placement)
        masks = "the model gives no masks" if found.masks is None else ""
        problems = dict.fromkeys((problem, placement.problem, masks))
        response.message = "; ".join(filter(None, problems))
        response.success = True

    def _check_model(self) -> None:
        state = self._node.state_name
        if self._ended or state not in ("inactive", "active"):
            raise ConfigError(f"there is no model: the node is {state}; configure it first")

    def _prompts(self, request: Any) -> PromptSet:
        given: dict[str, Any] = {}
        if len(request.prompts):
            given["prompts"] = list(request.prompts)
        if request.score_threshold:
            given["score_threshold"] = float(request.score_threshold)
        prompts: PromptSet = self._node.prompt_set(given)
        return prompts

    def _given(self, request: Any) -> tuple[Frame, str]:
        """The image of the request, and why it has no depth though depth was given."""
        frame = frame_of(request.image, 0, self._node.get_fully_qualified_name())
        if not len(request.depth.data):
            return frame, ""
        rectified = self._node.get_parameter("rectified").value
        reader = DepthReader(self._node.images.transforms, rectified=rectified)
        try:
            reader.take_info(request.camera_info)
        except SourceError as error:
            return frame, f"no depth: {error}"
        placed = reader.with_depth(frame, request.depth)
        return placed, f"no depth: {reader.problem}" if reader.problem else ""

    def _next(self, timeout_s: float, placement: Placement) -> tuple[Frame, str]:
        """The next image that the camera sends, and what it lacks.

        Where the parameters ask for depth and `target_frame`, images without these are passed over
        until the time is over.

        Raises:
            SourceError: no image came, or it cannot be read.
            StoppedError: the node was stopped meanwhile.
        """
        newest = self._newest = _Newest(self._node.get_fully_qualified_name())
        # Its own subscription: the node's is there only while an output has a reader.
        images = ImageInput(self._node, lambda: newest, self._node.images.transforms, paced=False)
        deadline_s = time.monotonic() + timeout_s
        last: tuple[Frame, str] | None = None
        self._check_model()  # again: `cancel` finds a call only from here on
        images.subscribe()
        try:
            while (deferred := newest.take(deadline_s)) is not None:
                frame = DeferredFrame.of(deferred)
                problem = self._problem(frame, images, placement)
                last = frame, problem
                if not problem:
                    break
            if last is None:
                raise SourceError(images.watch.silence(timeout_s))
        finally:
            images.unsubscribe("the call is over")
            self._newest = None
        return last

    def _problem(self, frame: Frame, images: ImageInput, placement: Placement) -> str:
        """What the image lacks for results in space."""
        if self._node.get_parameter("depth").value == "none":
            return ""
        if frame.depth is None:
            return f"no depth: {images.depth_problem}"
        placement.patience = Patience()  # it waits for the transform of each image
        placement.of(frame)
        return placement.problem

    def _fill(self, response: Any, result: FrameResult, placement: Placement) -> None:
        encoder = self._node.encoder
        header = encoder.header(result.frame)
        response.image = encoder.image(header, result.frame.image)
        response.detections = encoder.detections(header, result)
        if result.instances.masks is not None:
            response.instance_image = encoder.image(header, encoder.instance_map(result))
        if result.frame.depth is not None:
            space = SpaceMessages(encoder, result, placement)
            response.detections_3d = space.message("detections_3d")
            response.points = space.message("points")


class _Newest:
    """The newest image that has arrived, for the one call that waits for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._ended = False

    def put(self, frame: Frame) -> None:
        """Take an image; one that nobody has taken is replaced."""
        with self._changed:
            self._frame = frame
            self._changed.notify_all()

    def end(self) -> None:
        """Let `take` end at once."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def take(self, deadline_s: float) -> Frame | None:
        """The newest image; None where none came by `deadline_s` of the monotonic clock.

        Raises:
            StoppedError: `end` was called.
        """
        with self._changed:
            left_s = max(0.0, deadline_s - time.monotonic())
            self._changed.wait_for(lambda: self._ended or self._frame is not None, left_s)
            if self._ended:
                raise StoppedError("the node was stopped while the call waited for an image")
            frame, self._frame = self._frame, None
            return frame


def _seconds(duration: Any) -> float:
    return max(0.0, float(duration.sec) + float(duration.nanosec) / 1e9)
