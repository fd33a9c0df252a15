"""Exits over ZeroMQ and ROS 2.

`subscribe` reads results that another process sends; it needs the extra `zmq`, which is imported
at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ape_nodes.zeromq.subscriber import subscribe

__all__ = ["subscribe"]


def __getattr__(name: str) -> Any:
    """Import `subscribe` when it is asked for."""
    if name == "subscribe":
        from ape_nodes.zeromq.subscriber import subscribe  # noqa: PLC0415 (see above)

        return subscribe
    raise AttributeError(f"module 'ape_nodes' has no attribute {name!r}")
