"""The commands `ape-stream bench dds` and `ape-stream bench node`."""

from __future__ import annotations

from typing import Annotated

import typer

from ape_stream.errors import PluginError

__all__ = ["dds", "node"]

_Rate = Annotated[float, typer.Option(min=0.1, max=1000.0, help="Images per second.")]


def dds(
    *,
    rate: _Rate = 30.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each form is sent.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per form.")] = False,
) -> None:
    """1080p images over ROS 2 topics between two processes: loss, latency, CPU time per image."""
    from ape_nodes.ros2.dds import benchmark  # noqa: PLC0415 (cyclonedds, numpy)

    benchmark.dds(rate=rate, seconds=seconds, as_json=as_json)


def node(
    *,
    rate: _Rate = 30.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long images are sent.")] = 10.0,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="What is drawn and found, separated by commas.")
    ] = "red apple,dog face,mushroom,fox",
    parameter: Annotated[
        list[str] | None, typer.Option(help="Of the node, as canvas:=480; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Raw 1080p images to `ape_node` and its detections back: loss and ages; needs rclpy."""
    try:
        from ape_nodes.ros2.rclpy_node import benchmark  # noqa: PLC0415 (rclpy)
    except ModuleNotFoundError as error:
        raise PluginError(
            f"bench node needs {error.name}: source a ROS 2 installation, or see 'rclpy by pip' in"
            " docs/ros2.md"
        ) from error
    prompts = [text.strip() for text in prompt.split(",") if text.strip()]
    benchmark.bench_node(
        rate=rate, seconds=seconds, prompts=prompts, parameters=parameter or [], as_json=as_json
    )
