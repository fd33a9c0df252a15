"""The command `ape-stream bench dds`."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["dds"]


def dds(
    *,
    rate: Annotated[float, typer.Option(min=0.1, max=1000.0, help="Images per second.")] = 30.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each form is sent.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per form.")] = False,
) -> None:
    """1080p images over ROS 2 topics between two processes: loss, latency, CPU time per image."""
    from ape_nodes.ros2.dds import benchmark  # noqa: PLC0415 (cyclonedds, numpy)

    benchmark.dds(rate=rate, seconds=seconds, as_json=as_json)
