"""Several cameras, one model, one process: cameras:=/front/image_raw,/rear/image_raw."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription


def _nodes(context: LaunchContext) -> list[Node]:
    cameras = LaunchConfiguration("cameras").perform(context).split(",")
    parameters = LaunchConfiguration("params_file").perform(context)
    return [
        Node(
            package="ape_stream",
            executable="ape_node",
            arguments=["--autostart", "--params", parameters, "--cameras", *cameras],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Start one process with a node per camera."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("cameras", description="Image topics, separated by commas."),
            DeclareLaunchArgument("params_file", default_value="", description="YAML file."),
            OpaqueFunction(function=_nodes),
        ]
    )
