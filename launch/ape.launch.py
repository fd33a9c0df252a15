"""One lifecycle node `ape`: ros2 launch ape_stream ape.launch.py image_topic:=/camera/image_raw."""

from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from launch import LaunchDescription

ARGUMENTS = {
    "namespace": ("", "Namespace of the node."),
    "name": ("ape", "Name of the node."),
    "image_topic": ("image", "Topic of the images."),
    "params_file": ("", "YAML file of parameters; empty: none."),
    "autostart": ("true", "Configure and activate at once."),
    "log_level": ("info", "debug, info, warn or error."),
}


def _node() -> LifecycleNode:
    return LifecycleNode(
        package="ape_stream",
        executable="ape_node",
        namespace=LaunchConfiguration("namespace"),
        name=LaunchConfiguration("name"),
        remappings=[("image", LaunchConfiguration("image_topic"))],
        arguments=[
            "--params",
            LaunchConfiguration("params_file"),
            "--ros-args",
            "--log-level",
            LaunchConfiguration("log_level"),
        ],
        output="screen",
    )


def generate_launch_description() -> LaunchDescription:
    """Start the node and, with autostart, configure and activate it."""
    node = _node()
    autostart = IfCondition(LaunchConfiguration("autostart"))

    def change(transition: int) -> EmitEvent:
        event = ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
        return EmitEvent(event=event, condition=autostart)

    activate = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[change(Transition.TRANSITION_ACTIVATE)],
    )
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=what)
        for name, (default, what) in ARGUMENTS.items()
    ]
    configure = change(Transition.TRANSITION_CONFIGURE)
    return LaunchDescription([*declared, RegisterEventHandler(activate), node, configure])
