"""Frames in from ROS 2 topics: `ros2:///camera/image_raw`, raw or compressed."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from ape_nodes.ros2.backend import choose, open_node
from ape_nodes.ros2.messages import frame_of
from ape_nodes.ros2.topics import TopicSpec
from ape_stream.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ape_nodes.ros2.backend import Reader, RosNode
    from ape_nodes.ros2.messages import RosFrame

__all__ = ["Ros2Source"]

_SLICE_S = 0.2
_log = logging.getLogger("ape_stream")


class Ros2Source:
    """The images of a topic, with or without a ROS installation; only the newest waits.

    Args:
        spec: `ros2:///camera/image_raw`; a topic that ends in `/compressed` holds CompressedImage.
        name: The stream's name.
        reliable: True asks for reliable delivery (the writer must offer it).
        domain_id: ROS_DOMAIN_ID; None reads the environment.
        timeout_s: Longest silence.
        distro: Whose message definitions are used (humble ... lyrical; dds only).
        backend: "dds", "rclpy", or "auto": dds where its extra is installed.

    Raises:
        ConfigError: the topic's name or an option cannot be used.
        PluginError: what the backend needs is not installed.
    """

    live = True

    def __init__(
        self,
        spec: str,
        *,
        name: str = "0",
        reliable: bool = False,
        domain_id: int | None = None,
        timeout_s: float = 30.0,
        distro: str = "jazzy",
        backend: str = "auto",
    ) -> None:
        topic = "/" + spec.removeprefix("ros2://").strip("/")
        if not all(part.isidentifier() for part in topic[1:].split("/")):
            raise ConfigError(f"{spec!r}: write ros2:///camera/image_raw, a topic's full name")
        kind = "CompressedImage" if topic.endswith("/compressed") else "Image"
        self._spec = TopicSpec(topic, f"sensor_msgs/msg/{kind}", reliable, False, 5, False, "")
        self.name = name
        self._domain_id = domain_id
        self._timeout_s = timeout_s
        self._distro = distro
        self._backend = choose(backend)
        self._node: RosNode | None = None
        self._reader: Reader | None = None
        self._using = threading.Lock()  # a node must not go while its reader waits
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        """Join the graph and subscribe."""
        letters = "".join(c if c.isalnum() and c.isascii() else "_" for c in self.name)
        name = f"ape_source_{letters}"
        node = open_node(self._backend, name, "/", self._domain_id, self._distro)
        self._node, self._reader = node, node.reader(self._spec.name, self._spec)
        self._closing.clear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the graph, once the reader's present wait is over; the loop over frames ends."""
        self._closing.set()  # the lock alone is not fair
        with self._using:
            node, self._node, self._reader = self._node, None, None
            if node is not None:
                node.close()

    @property
    def frame_count(self) -> int | None:
        """Nobody can know."""
        return None

    def __iter__(self) -> Iterator[RosFrame]:
        """Yield the images that come.

        Raises:
            SourceError: nothing came for `timeout_s`.
        """
        index, heard_s = 0, time.monotonic()
        while (messages := self._take()) is not None:
            for message in messages:
                heard_s = time.monotonic()
                try:
                    frame = frame_of(message, index, self.name)
                except SourceError as error:
                    _log.warning("%s: image left out: %s", self._spec.name, error)
                    continue
                finally:
                    index += 1
                yield frame
            if time.monotonic() - heard_s > self._timeout_s:
                raise SourceError(
                    f"no image came on {self._spec.name} for {self._timeout_s:g} s: is it"
                    " published, in this ROS_DOMAIN_ID?"
                )

    def _take(self) -> list[Any] | None:
        """What has come, perhaps nothing; None once this source is closed."""
        with self._using:
            if self._reader is None or self._closing.is_set():
                return None
            return list(self._reader.take(_SLICE_S))
