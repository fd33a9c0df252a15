"""Several cameras, one model, one process: cameras:=/front/image_raw,/rear/image_raw."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

ARGUMENTS = {
    "cameras": (None, "Image topics, separated by commas; required."),
    "namespace": ("", "Namespace above those of the cameras."),
    "prompts": ("", "What to find, separated by commas; empty: as in the file."),
    "model": ("", "Name or path of the model; empty: as in the file."),
    "image_transport": ("", "raw, compressed, ffmpeg or foxglove; empty: as in the file."),
    "use_sim_time": ("false", "Take the time from /clock."),
    "params_file": ("", "YAML file of parameters for all; empty: none."),
    "respawn": ("false", "Start the process again 2 s after it ended, as when it was killed."),
    "log_level": ("info", "debug, info, warn or error."),
}


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "1")


def _nodes(context: LaunchContext) -> list[Node]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    given = {name: value(name) for name in ("model", "image_transport") if value(name)}
    if prompts := _listed(value("prompts")):
        given["prompts"] = prompts
    if _is_true(value("use_sim_time")):
        given["use_sim_time"] = True
    file = ["--params", value("params_file")] if value("params_file") else []
    return [
        Node(
            package="ape_stream",
            executable="ape_node",
            # Also where it is empty: a namespace that is pushed around this file comes before it.
            namespace=value("namespace"),
            parameters=[given] if given else [],
            arguments=[
                *("--autostart", *file, "--cameras", *_listed(value("cameras"))),
                *("--ros-args", "--log-level", value("log_level")),
            ],
            output="screen",
            respawn=_is_true(value("respawn")),
            respawn_delay=2.0,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Start one process with a node per camera."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=what)
        for name, (default, what) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_nodes)])
