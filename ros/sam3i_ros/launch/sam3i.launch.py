"""Starts the node and activates it: `ros2 launch sam3i_ros sam3i.launch.py instruction:='the red cup'`."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

PARAMETERS = PathJoinSubstitution([FindPackageShare("sam3i_ros"), "config", "sam3i.yaml"])
ARGUMENTS = {
    "params_file": (PARAMETERS, "file of parameters; what is given below and not blank overrides it"),
    "model": ("", "a bundled name, the folder of a bundle, or a Hub id"),
    "instruction": ("", "what to segment from the start"),
    "publish_overlay": ("", "true or false: whether what was found is drawn over the images"),
    "use_depth": ("", "true or false: whether depth is read"),
    "use_sim_time": ("", "true or false: whether time comes from /clock, as with a bag"),
    "image": ("image", "topic of the camera's images"),
    "depth": ("depth", "topic of depth images that are aligned with them"),
    "camera_info": ("camera_info", "topic of the camera's calibration"),
    "namespace": ("", "of the node and its topics"),
    "autostart": ("true", "true or false: whether the node is configured and activated"),
}


def start(context: LaunchContext) -> list:
    """The node, and the two transitions where they are wanted."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    parameters: dict[str, object] = {"model": given["model"]} if given["model"] else {}
    if given["instruction"]:
        parameters["instructions"] = [given["instruction"]]
    for name in ("publish_overlay", "use_depth", "use_sim_time"):
        if given[name]:
            parameters[name] = given[name].lower() == "true"
    node = LifecycleNode(
        package="sam3i_ros",
        executable="sam3i_node",
        name="sam3i",
        namespace=given["namespace"],
        output="screen",
        parameters=[given["params_file"], parameters],
        remappings=[
            *((topic, given[topic]) for topic in ("image", "depth", "camera_info")),
            ("image/compressed", f"{given['image']}/compressed"),
        ],
    )
    if given["autostart"].lower() != "true":
        return [node]

    def transition(number: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=number))

    activate = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[transition(Transition.TRANSITION_ACTIVATE)],
    )
    return [RegisterEventHandler(activate), node, transition(Transition.TRANSITION_CONFIGURE)]


def generate_launch_description() -> LaunchDescription:
    """The arguments, then what they ask for."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
