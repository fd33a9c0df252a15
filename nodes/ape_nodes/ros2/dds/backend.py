"""A ROS 2 node without ROS: real topics through the `cyclonedds` wheel.

As rmw_cyclonedds does: topic `rt/<name>`, type `pkg::msg::dds_::Name_` as a keyless FINAL struct,
plain CDR (XCDR1), and the node announces itself on `ros_discovery_info`. The whole type is always
declared: other nodes read type descriptions and have crashed on partial ones.

`ddspy_write` and `ddspy_take` are internals of the binding (hence cyclonedds<12): they take and
give raw CDR, which avoids its slow serialiser in Python.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from cyclonedds import _clayer
from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import make_idl_struct
from cyclonedds.idl import types as idl_types
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from ape_nodes.ros2.dds.cdr import Packer, unpack
from ape_nodes.ros2.types import plain_encoder, type_store
from ape_stream.errors import ConfigError, SinkError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_nodes.ros2.encoder import Encoder
    from ape_nodes.ros2.topics import TopicSpec

__all__ = ["DdsNode", "DdsReader", "DdsWriter"]

idl: Any = idl_types  # its generic types are made at run time
_BASES: Final = {
    "bool": bool, "byte": idl.uint8, "char": idl.uint8, "uint8": idl.uint8, "int8": idl.int8,
    "uint16": idl.uint16, "int16": idl.int16, "uint32": idl.uint32, "int32": idl.int32,
    "uint64": idl.uint64, "int64": idl.int64, "float32": idl.float32, "float64": idl.float64,
}  # fmt: skip
_TUNING: Final = (
    "<General>{network}<MaxMessageSize>65500B</MaxMessageSize>"
    "<FragmentSize>65000B</FragmentSize></General>"
    '<Internal><SocketReceiveBufferSize max="8MB"/></Internal>{discovery}'
)
"""The receive buffer decides whether raw 1080p images arrive; the fragment size is second."""
_LOCAL_NETWORK: Final = (
    '<Interfaces><NetworkInterface name="lo"/></Interfaces><AllowMulticast>false</AllowMulticast>'
)
_LOCAL_DISCOVERY: Final = (
    "<Discovery><ParticipantIndex>auto</ParticipantIndex>"
    '<Peers><Peer address="127.0.0.1"/></Peers></Discovery>'
)
_IMAGE_DEPTH: Final = 30
"""A second at 30 Hz. Images that all readers have acknowledged are not kept."""
_log = logging.getLogger("ape_stream")


def _configure() -> None:
    """Give Cyclone DDS our tuning before the first node, unless the user configured it."""
    local = os.environ.get("ROS_LOCALHOST_ONLY") == "1"
    local |= os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"
    inner = _TUNING.format(
        network=_LOCAL_NETWORK if local else "", discovery=_LOCAL_DISCOVERY if local else ""
    )
    uri = f'<CycloneDDS><Domain Id="any">{inner}</Domain></CycloneDDS>'
    os.environ.setdefault("CYCLONEDDS_URI", uri)


class _Types:
    """The complete IDL struct of each ROS type, made at its first use."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._made: dict[str, Any] = {}

    def struct(self, name: str) -> Any:
        if name not in self._made:
            package, _, short = name.split("/")
            fields = {field: self._field(kind) for field, kind in self._store.fielddefs[name][1]}
            # rmw's name mangling; field names stay plain, as in rmw_fastrtps since Kilted.
            dds_name = f"{package}.msg.dds_.{short}_"
            self._made[name] = make_idl_struct(f"{short}_", dds_name, fields)
        return self._made[name]

    def _field(self, kind: Any) -> Any:
        # rosbags describes a field as (node, detail): a named type, a base type with a limit of
        # its length, or an array or sequence of another field.
        node, detail = kind
        match node.name:
            case "NAME":
                return self.struct(detail)
            case "BASE":
                name, limit = detail
                if name != "string":
                    return _BASES[name]
                return idl.bounded_str[limit] if limit else str
            case "ARRAY":
                return idl.array[self._field(detail[0]), detail[1]]
        inner, limit = detail
        inner = self._field(inner)
        return idl.sequence[inner, limit] if limit else idl.sequence[inner]


def _depth(spec: TopicSpec, *, writes: bool) -> int:
    """The history depth of an endpoint: the topic's, but deeper where we write reliable images.

    A reliable reader of Fast DDS (2.14, ROS 2 Jazzy) loops for ever when an image that it has
    received in part is overwritten by its writer; so a slow reader must still find the image here.
    """
    writes_images = writes and spec.reliable and spec.type == "sensor_msgs/msg/Image"
    return max(spec.depth, _IMAGE_DEPTH) if writes_images else spec.depth


def _qos(spec: TopicSpec, user_data: bytes, *, writes: bool) -> Qos:
    reliable = Policy.Reliability.Reliable(duration(milliseconds=100))
    policies = [
        reliable if spec.reliable else Policy.Reliability.BestEffort,
        Policy.Durability.TransientLocal if spec.latched else Policy.Durability.Volatile,
        Policy.History.KeepLast(_depth(spec, writes=writes)),
        # ROS 2 writes and reads XCDR1.
        Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False),
        Policy.Userdata(user_data),
    ]
    if writes:
        # A topic without keys has one instance: leaving must not dispose it for other writers.
        policies.append(Policy.WriterDataLifecycle(autodispose=False))
    return Qos(*policies)


class DdsWriter:
    """Publishes one topic."""

    def __init__(self, entity: Any, name: str, store: Any) -> None:
        self.entity = entity
        self._type = name
        self._packer = Packer(store, name)

    def write(self, message: Any) -> None:
        """Send a message of the type store.

        Raises:
            SinkError: DDS refused it.
        """
        # The payload is CDR with its 4-byte header; DDS copies it before it returns.
        code = _clayer.ddspy_write(self.entity._ref, self._packer.pack(message))  # noqa: SLF001
        if code < 0:
            raise SinkError(f"DDS refused a {self._type} (code {code})")

    @property
    def readers(self) -> int:
        """How many readers are matched now."""
        return len(self.entity.get_matched_subscriptions())


class DdsReader:
    """Receives one topic."""

    def __init__(self, entity: Any, name: str, store: Any, participant: Any) -> None:
        self.entity = entity
        self._type = name
        self._store = store
        # Only what was not read yet wakes the waiting thread.
        states = ViewState.Any | InstanceState.Alive | SampleState.NotRead
        self._condition = ReadCondition(entity, states)
        self._wait_set = WaitSet(participant)
        self._wait_set.attach(self._condition)

    def take(self, timeout_s: float) -> Iterator[Any]:
        """What has arrived, oldest first; waits at most `timeout_s` for the first message.

        A message that cannot be read (its text is not UTF-8) is left out with a warning.

        Raises:
            SourceError: DDS failed.
        """
        self._wait_set.wait(duration(milliseconds=max(1, round(1000 * timeout_s))))
        # At most 100 at a time; the rest wakes the next wait at once.
        mask = SampleState.Any | ViewState.Any | InstanceState.Any
        taken = _clayer.ddspy_take(self.entity._ref, mask, 100)  # noqa: SLF001
        if isinstance(taken, int):
            raise SourceError(f"DDS cannot read a {self._type} (code {taken})")
        for data, info in taken:
            if info.valid_data:  # else it only says that a writer has gone
                try:
                    message = unpack(self._store, data, self._type)
                except SourceError as error:
                    _log.warning("message left out: %s", error)
                    continue
                yield message


class DdsNode:
    """A node on the ROS 2 graph.

    Args:
        name: Node name.
        namespace: `/` or `/robot`.
        domain_id: ROS_DOMAIN_ID; None reads the environment.
        distro: Whose message definitions are used.

    Raises:
        ConfigError: the domain cannot be joined.
    """

    def __init__(
        self, name: str, namespace: str = "/", domain_id: int | None = None, distro: str = "jazzy"
    ) -> None:
        _configure()
        self.store = type_store(distro)
        self._types = _Types(self.store)
        self._name, self._namespace = name, namespace
        self._readers: list[Any] = []
        self._writers: list[Any] = []
        number = int(os.environ.get("ROS_DOMAIN_ID", "0")) if domain_id is None else domain_id
        try:
            # As rcl announces it: the node has no security enclave of its own.
            enclave = Qos(Policy.Userdata(b"enclave=/;"))
            self._participant = DomainParticipant(number, qos=enclave)
        except Exception as error:
            raise ConfigError(f"no DDS participant in domain {number}: {error}") from error
        self._discovery: DdsWriter | None = self._discovery_writer()

    def encoder(self, mask_encoding: str) -> Encoder:
        """An encoder that builds the messages of this node's type store."""
        return plain_encoder(self.store, mask_encoding)

    def path(self, topic: str) -> str:
        """The absolute name of a topic (`~/x` is the node's own)."""
        base = self._namespace.rstrip("/")
        if topic.startswith("/"):
            return topic
        if topic.startswith("~/"):
            return f"{base}/{self._name}{topic[1:]}"
        return f"{base}/{topic}"

    def _topic(self, dds_name: str, type_name: str) -> Topic[Any]:
        return Topic(self._participant, dds_name, self._types.struct(type_name))

    def _hash(self, spec: TopicSpec) -> bytes:
        # rmw puts the type's hash into USER_DATA: `ros2 topic info -v` shows and compares it.
        return f"typehash={self.store.hash_rihs01(spec.type)};".encode()

    def has_type(self, name: str) -> bool:
        """Whether the type store has this type."""
        return name in self.store.types

    def writer(self, topic: str, spec: TopicSpec) -> DdsWriter:
        """Publish a topic with this type and QoS."""
        made = self._topic(f"rt{self.path(topic)}", spec.type)
        entity: Any = DataWriter(self._participant, made, _qos(spec, self._hash(spec), writes=True))
        self._writers.append(entity)
        self._announce()
        return DdsWriter(entity, spec.type, self.store)

    def reader(self, topic: str, spec: TopicSpec) -> DdsReader:
        """Subscribe to a topic with this type and QoS."""
        made = self._topic(f"rt{self.path(topic)}", spec.type)
        entity: Any = DataReader(
            self._participant, made, _qos(spec, self._hash(spec), writes=False)
        )
        self._readers.append(entity)
        self._announce()
        return DdsReader(entity, spec.type, self.store, self._participant)

    def _discovery_writer(self) -> DdsWriter:
        name = "rmw_dds_common/msg/ParticipantEntitiesInfo"
        topic = self._topic("ros_discovery_info", name)
        qos = Qos(
            Policy.Reliability.Reliable(duration(milliseconds=100)),
            Policy.Durability.TransientLocal,
            Policy.History.KeepLast(1),
            Policy.DataRepresentation(True, False),
        )
        return DdsWriter(DataWriter(self._participant, topic, qos), name, self.store)

    def _announce(self) -> None:
        """Publish which endpoints are this node's, for `ros2 node info`."""
        if self._discovery is None:
            return
        # The whole list each time: the topic is latched with a depth of 1.
        node = self.store.types["rmw_dds_common/msg/NodeEntitiesInfo"](
            node_namespace=self._namespace,
            node_name=self._name,
            reader_gid_seq=[self._gid(entity) for entity in self._readers],
            writer_gid_seq=[self._gid(entity) for entity in self._writers],
        )
        info = self.store.types["rmw_dds_common/msg/ParticipantEntitiesInfo"](
            gid=self._gid(self._participant), node_entities_info_seq=[node]
        )
        self._discovery.write(info)

    def _gid(self, entity: Any) -> Any:
        field = self.store.fielddefs["rmw_dds_common/msg/Gid"][1][0]
        length = field[1][1][1]  # 16 since Iron, 24 in Humble
        raw = np.zeros(length, np.uint8)
        raw[:16] = np.frombuffer(entity.guid.bytes, np.uint8)
        return self.store.types["rmw_dds_common/msg/Gid"](data=raw)

    def close(self) -> None:
        """Leave the graph; other nodes notice at once."""
        self._discovery = None  # entities must be released before their participant
        self._readers.clear()
        self._writers.clear()
        # The binding deletes in its finaliser only; waiting for the collector would leave the
        # node on the graph.
        self._participant.__del__()
