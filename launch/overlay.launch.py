"""The node and a window with its overlay (package rqt_image_view)."""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

ARGUMENTS = {
    "namespace": ("", "Namespace of the node."),
    "name": ("ape", "Name of the node."),
    "image_topic": ("image", "Topic of the images."),
    "prompts": ("", "What to find, separated by commas; empty: as in the file."),
    "params_file": ("", "YAML file of parameters; empty: none."),
}


def _window(context: LaunchContext) -> list[Node]:
    own = [LaunchConfiguration(key).perform(context) for key in ("namespace", "name")]
    # What PushRosNamespace around this file has set; an absolute namespace goes before it.
    pushed = context.launch_configurations.get("ros_namespace", "")
    names = own if own[0].startswith("/") else [pushed, *own]
    topic = "/".join(["", *(name.strip("/") for name in names if name.strip("/")), "overlay"])
    return [Node(package="rqt_image_view", executable="rqt_image_view", arguments=[topic])]


def generate_launch_description() -> LaunchDescription:
    """Include ape.launch.py and show the node's overlay."""
    path = PathJoinSubstitution([ThisLaunchFileDir(), "ape.launch.py"])
    passed = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=what)
        for name, (default, what) in ARGUMENTS.items()
    ]
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path), launch_arguments=passed.items()
    )
    return LaunchDescription([*declared, node, OpaqueFunction(function=_window)])
