"""Copies topics from one bag into another, message by message, as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ape_nodes.ros2.bags.source import IMAGE_TYPES, open_bag
from ape_stream.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["copy_topics"]


def copy_topics(bag: Path, writer: Any, store: Any) -> int:
    """Write all messages of a bag except colour images and results of ours.

    Depth images are copied: they are images whose topic has `depth` in its name. A recording that
    was cut off is copied as far as it goes.

    Args:
        bag: The bag to read.
        writer: An open writer of rosbags.
        store: The type store for types that the bag does not describe.

    Returns:
        How many messages were copied.

    Raises:
        SourceError: the bag cannot be read.
    """
    reader, _ = open_bag(bag)
    count = 0
    try:
        chosen = [c for c in reader.connections if _is_copied(c)]
        made = {c.id: _connection(writer, c, reader, store) for c in chosen}
        for connection, time_ns, data in reader.messages(chosen) if chosen else ():
            writer.write(made[connection.id], time_ns, data)
            count += 1
    except SourceError:
        raise
    except Exception as error:  # damaged bags raise errors of every kind
        raise SourceError(f"{bag}: {count} messages were copied, then: {error}") from error
    finally:
        reader.close()
    return count


def _is_copied(connection: Any) -> bool:
    if connection.topic.startswith("/ape/"):
        return False
    return connection.msgtype not in IMAGE_TYPES or "depth" in connection.topic


def _connection(writer: Any, connection: Any, reader: Any, store: Any) -> Any:
    types = reader.typestore if connection.msgtype in reader.typestore.types else store
    return writer.add_connection(
        connection.topic,
        connection.msgtype,
        typestore=types,
        offered_qos_profiles=list(connection.ext.offered_qos_profiles),
    )
