"""Results out as ROS 2 topics: `ros2:/ape`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Self

from ape_nodes.ros2.backend import choose, open_node
from ape_nodes.ros2.diagnostics import Health, run_values
from ape_nodes.ros2.messages import ResultPublisher
from ape_nodes.ros2.topics import DIAGNOSTICS, OUTPUTS
from ape_stream.errors import ConfigError, SinkError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ape_nodes.ros2.backend import RosNode, Writer
    from ape_stream.stats import RunStats
    from ape_stream.types import FrameResult

__all__ = ["Ros2Sink"]

_DIAGNOSE_EVERY_S: Final = 1.0


class _Port:
    """The output topics of one node (or of one stream of it)."""

    def __init__(self, node: RosNode, prefix: str) -> None:
        self._writers: dict[str, Writer] = {
            spec.name: node.writer(f"~/{prefix}{spec.name}", spec) for spec in OUTPUTS
        }

    def has_readers(self, name: str) -> bool:
        return self._writers[name].readers > 0

    def publish(self, name: str, message: Any) -> None:
        self._writers[name].write(message)


class Ros2Sink:
    """Publishes results as the topics of a ROS 2 node, with or without a ROS installation.

    Args:
        spec: `ros2:/ape` or `ros2:/robot/ape`: the node's full name.
        mask_encoding: "mono16", or "mono8" where all values fit.
        per_stream: True puts each stream under its own name: `~/<stream>/detections`.
        domain_id: ROS_DOMAIN_ID; None reads the environment.
        distro: Whose message definitions are used (humble ... lyrical; dds only).
        backend: "dds", "rclpy", or "auto": dds where its extra is installed.

    Raises:
        ConfigError: the name or an option cannot be used.
        PluginError: what the backend needs is not installed.
    """

    def __init__(
        self,
        spec: str,
        *,
        mask_encoding: str = "mono16",
        per_stream: bool = False,
        domain_id: int | None = None,
        distro: str = "jazzy",
        backend: str = "auto",
    ) -> None:
        path = spec.removeprefix("ros2:").strip("/") or "ape"
        if not all(part.isidentifier() for part in path.split("/")):
            raise ConfigError(f"{spec!r}: a node is named like /robot/ape, by letters and digits")
        namespace, _, self._node_name = path.rpartition("/")
        self.name = spec
        self._place = f"/{namespace}"
        self._mask_encoding = mask_encoding
        self._per_stream = per_stream
        self._domain_id = domain_id
        self._distro = distro
        self._backend = choose(backend)
        self._node: RosNode | None = None
        self._publishers: dict[str, ResultPublisher] = {}
        self._diagnostics: Writer | None = None
        self._stats: Callable[[], RunStats] | None = None
        self._diagnosed_s = time.monotonic()

    def watch(self, stats: Callable[[], RunStats]) -> None:
        """Take the way to the run's numbers, for `/diagnostics`."""
        self._stats = stats

    def __enter__(self) -> Self:
        """Join the graph."""
        self._node = open_node(
            self._backend, self._node_name, self._place, self._domain_id, self._distro
        )
        self._diagnostics = self._node.writer(DIAGNOSTICS.name, DIAGNOSTICS)
        if not self._per_stream:
            self._publisher("")  # so that the topics are there before the first frame
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the graph."""
        if self._node is not None:
            self._publishers.clear()
            self._diagnostics = None
            self._node.close()
            self._node = None

    def _publisher(self, stream: str) -> ResultPublisher:
        if self._node is None:
            raise SinkError(f"{self.name} is not open: use it in a with statement")
        if stream not in self._publishers:
            letters = "".join(c if c.isalnum() and c.isascii() else "_" for c in stream)
            prefix = f"{'s' if letters[0].isdigit() else ''}{letters}/" if stream else ""
            encoder = self._node.encoder(self._mask_encoding)
            self._publishers[stream] = ResultPublisher(encoder, _Port(self._node, prefix))
        return self._publishers[stream]

    def write(self, result: FrameResult) -> None:
        """Publish a result.

        Raises:
            SinkError: DDS does not take it.
        """
        self._publisher(result.frame.stream if self._per_stream else "").publish(result)
        self._diagnose(result)

    def _diagnose(self, result: FrameResult) -> None:
        """Tell once a second how it goes; no results, no news: readers then call it stale."""
        if self._diagnostics is None or self._node is None:
            return
        if time.monotonic() - self._diagnosed_s < _DIAGNOSE_EVERY_S:
            return
        self._diagnosed_s = time.monotonic()
        encoder = self._node.encoder(self._mask_encoding)
        name = f"{self._place.rstrip('/')}/{self._node_name}"
        health = Health("OK", "active")
        values = {"prompts": ", ".join(result.prompts.texts)}
        if self._stats is not None:
            values |= run_values(self._stats())
        message = encoder.diagnostics(time.time_ns(), name, health, values)
        self._diagnostics.write(message)
