"""One lifecycle node `ape`: ros2 launch ape_stream ape.launch.py image_topic:=/camera/image_raw."""

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from launch import LaunchContext, LaunchDescription

ARGUMENTS = {
    "namespace": ("", "Namespace of the node."),
    "name": ("ape", "Name of the node."),
    "image_topic": ("image", "Topic of the images."),
    "image_transport": ("", "raw, compressed, ffmpeg or foxglove; empty: as in the file."),
    "prompts": ("", "What to find, separated by commas (`cat, dog:0.6`); empty: as in the file."),
    "model": ("", "Name or path of the model; empty: as in the file."),
    "depth_topic": ("", "Topic of a depth image, or of its compressedDepth; empty: no depth."),
    "points_topic": ("", "Topic of a point cloud; empty: none."),
    "camera_info_topic": ("camera_info", "Topic of the image's calibration, for depth."),
    "target_frame": ("", "Coordinate frame of results in space; empty: the image's."),
    "use_sim_time": ("false", "Take the time from /clock."),
    "params_file": ("", "YAML file of parameters; empty: none."),
    "autostart": ("true", "Configure and activate at once."),
    "respawn": ("false", "Start the node again 2 s after it ended, as when it was killed."),
    "log_level": ("info", "debug, info, warn or error."),
}


_COMPRESSED = "/compressedDepth"


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "1")


def _parameters(value):  # noqa: ANN001, ANN202 (a function from an argument to its text)
    """The parameters that arguments give; those that are empty are left to the file."""
    given = {name: value(name) for name in ("image_transport", "model", "target_frame")}
    given = {name: text for name, text in given.items() if text}
    prompts = [text.strip() for text in value("prompts").split(",") if text.strip()]
    if prompts:
        given["prompts"] = prompts
    if value("depth_topic"):
        given["depth"] = "compressed" if value("depth_topic").endswith(_COMPRESSED) else "image"
    elif value("points_topic"):
        given["depth"] = "points"
    if _is_true(value("use_sim_time")):
        given["use_sim_time"] = True
    return given


def _node(value) -> LifecycleNode:  # noqa: ANN001 (as above)
    form = _COMPRESSED if value("depth_topic").endswith(_COMPRESSED) else ""
    topics = {
        "image": value("image_topic"),
        f"depth{form}": value("depth_topic"),
        "points": value("points_topic"),
        "camera_info": value("camera_info_topic"),
    }
    given = _parameters(value)
    respawn = _is_true(value("respawn"))
    # A node that is started again starts itself: the event that configures it is sent once, and
    # discovery still sees the services of the one that was killed.
    alone = ["--autostart"] if respawn and _is_true(value("autostart")) else []
    return LifecycleNode(
        package="ape_stream",
        executable="ape_node",
        namespace=value("namespace"),
        name=value("name"),
        remappings=[(name, topic) for name, topic in topics.items() if topic not in ("", name)],
        parameters=[given] if given else [],
        arguments=[
            *alone,
            *(["--params", value("params_file")] if value("params_file") else []),
            *("--ros-args", "--log-level", value("log_level")),
        ],
        output="screen",
        respawn=respawn,
        respawn_delay=2.0,
    )


def _started(context: LaunchContext) -> list:
    """The node and, with autostart, the events that configure and activate it.

    Everything is read here and now: after an include or a group, launch forgets its arguments, and
    a condition that is evaluated later, in an event handler, would end the whole bringup.
    """

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    node = _node(value)
    if _is_true(value("respawn")) or not _is_true(value("autostart")):
        return [node]

    def change(transition: int) -> EmitEvent:
        matcher = matches_action(node)
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matcher, transition_id=transition)
        )

    activate = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[change(Transition.TRANSITION_ACTIVATE)],
    )
    return [RegisterEventHandler(activate), node, change(Transition.TRANSITION_CONFIGURE)]


def generate_launch_description() -> LaunchDescription:
    """Start the node and, with autostart, configure and activate it."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=what)
        for name, (default, what) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_started)])
