"""Sends what a result holds to the output topics; nothing is made that nobody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ape_nodes.ros2.annotations import image_annotations
from ape_nodes.ros2.space.results import SPACE_TOPICS, Placement, SpaceMessages
from ape_nodes.ros2.topics import OUTPUTS
from ape_stream.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ape_nodes.ros2.encoder import Encoder
    from ape_nodes.ros2.topics import LabelSource
    from ape_stream.types import FrameResult, MapKind, PromptSet

__all__ = ["ResultPublisher", "TopicPublisher"]


class TopicPublisher(Protocol):
    """Sends messages to the output topics of one node."""

    def has_readers(self, name: str) -> bool:
        """Whether anybody is subscribed to this output topic now."""

    def publish(self, name: str, message: Any) -> None:
        """Send a message to this output topic."""


class ResultPublisher(Closing):
    """A sink that sends each result as messages; a map for several topics is painted once.

    Args:
        encoder: Builds the messages.
        topics: Sends them.
        placement: How results with depth are placed in space.
        label_source: "instances" or "semantic": what `label_image` is made from.
    """

    def __init__(
        self,
        encoder: Encoder,
        topics: TopicPublisher,
        placement: Placement | None = None,
        label_source: LabelSource = "instances",
    ) -> None:
        self.name = "topics"
        self._encoder = encoder
        self._label_source = label_source
        self._topics = topics
        self._placement = placement or Placement()
        self._named: PromptSet | None = None

    @property
    def maps(self) -> frozenset[MapKind]:
        """What `label_image` needs while it has readers; see `NeedsMaps`."""
        topics = ("label_image", "label_image/compressed")
        wanted = self._label_source == "semantic" and any(map(self._topics.has_readers, topics))
        return frozenset({"semantic"}) if wanted else frozenset()

    def close(self, _error: BaseException | None = None, /) -> None:
        """Nothing: the topics are the caller's."""

    def write(self, result: FrameResult) -> None:
        """Send a result to every topic that needs it."""
        for name, message in self.messages(result, self._topics.has_readers):
            self._topics.publish(name, message)

    def messages(
        self, result: FrameResult, has_readers: Callable[[str], bool]
    ) -> Iterator[tuple[str, Any]]:
        """Topic and message, in the order of `OUTPUTS`.

        Names come first and once per prompt set, so that no map is read with the wrong names. A
        lazy topic is left out while it has no readers, one in space if the frame has no depth, and
        one of masks if the model gives boxes only.
        """
        messages = _Messages(self._encoder, result, self._placement)
        for spec in OUTPUTS:
            if spec.name == "label_info":
                # Latched: late readers get the last one, so it is sent on a change only.
                if self._named == result.prompts:
                    continue
                self._named = result.prompts
            if spec.name in SPACE_TOPICS and result.frame.depth is None:
                continue
            if _paints_masks(spec.name) and not _paintable(result):
                continue
            if not spec.lazy or has_readers(spec.name):
                yield spec.name, messages.message(spec.name)


def _paints_masks(topic: str) -> bool:
    return topic.partition("/")[0] in ("label_image", "confidence_image", "instance_image")


def _paintable(result: FrameResult) -> bool:
    return result.instances.masks is not None or result.maps.semantic is not None


class _Messages:
    """The messages of one result."""

    def __init__(self, encoder: Encoder, result: FrameResult, placement: Placement) -> None:
        self._encoder = encoder
        self._result = result
        self._placement = placement
        self._space: SpaceMessages | None = None
        self._header = encoder.header(result.frame)
        self._painted: dict[str, NDArray[Any]] = {}

    def message(self, topic: str) -> Any:
        encoder, result = self._encoder, self._result
        if topic == "label_info":
            return encoder.label_info(self._header, result.prompts)
        if topic == "detections":
            return encoder.detections(self._header, result)
        if topic == "annotations":
            return image_annotations(encoder, self._header, result)
        if topic in SPACE_TOPICS:
            # Boxes are computed once, for detections and markers.
            if self._space is None:
                self._space = SpaceMessages(encoder, result, self._placement)
            return self._space.message(topic)
        # "overlay" and "overlay/compressed" are the same pixels, painted once.
        name, _, compressed = topic.partition("/")
        # Painting 1080p maps costs milliseconds; encoding follows for each topic.
        if name not in self._painted:
            self._painted[name] = self._paint(name)
        make = encoder.compressed if compressed else encoder.image
        return make(self._header, self._painted[name])

    def _paint(self, name: str) -> NDArray[Any]:
        if name == "label_image":
            return self._encoder.class_map(self._result)
        if name == "confidence_image":
            return self._encoder.confidence_map(self._result)
        if name == "instance_image":
            return self._encoder.instance_map(self._result)
        from ape_stream.draw import draw  # noqa: PLC0415 (it imports supervision, which takes 1 s)

        return draw(self._result)
