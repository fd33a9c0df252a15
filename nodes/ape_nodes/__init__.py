"""Sources and sinks over ZeroMQ, ROS 2 and HTTP; they know messages, never the network.

zeromq       results, frames and control over ZeroMQ (extra `zmq`)
metrics      numbers of a run for Prometheus (extra `metrics`)
web          the live page in a browser (extra `web`)
ros2         topics, bags and the lifecycle node of ROS 2 (extras `dds`, `bags`, `rclpy`)
rerun_sinks  the outputs `out.rrd` and `rerun:` (extra `rerun`)
reach        which addresses other machines reach
control      `ape-stream control`, over ZeroMQ or the live page
benchmarks   what the benchmarks of both share

`ape_nodes.subscribe` reads results that another process sends over ZeroMQ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ape_nodes.zeromq.subscriber import subscribe

__all__ = ["subscribe"]


def __getattr__(name: str) -> Any:
    """Import `subscribe` when it is asked for: it needs an extra."""
    if name == "subscribe":
        from ape_nodes.zeromq.subscriber import subscribe  # noqa: PLC0415 (see above)

        return subscribe
    raise AttributeError(f"module 'ape_nodes' has no attribute {name!r}")
