"""Segments a recording: `ros2 launch sam3i_ros bag.launch.py bag:=d.mcap image:=/image instruction:=cup`."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("sam3i_ros")


def generate_launch_description() -> LaunchDescription:
    """The player, the node with an overlay, and rviz where it is wanted."""
    value = {name: LaunchConfiguration(name) for name in ("bag", "image", "instruction", "rviz")}
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, "launch", "sam3i.launch.py"])),
        launch_arguments={
            "image": value["image"],
            "instruction": value["instruction"],
            "publish_overlay": "true",
            "use_sim_time": "true",
        }.items(),
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="a recording: .mcap, .db3 or a folder of rosbag2"),
            DeclareLaunchArgument("image", description="its topic of images"),
            DeclareLaunchArgument("instruction", description="what to segment"),
            DeclareLaunchArgument("rviz", default_value="true", description="whether to show it"),
            ExecuteProcess(cmd=["ros2", "bag", "play", value["bag"], "--clock", "--loop"], output="screen"),
            node,
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", PathJoinSubstitution([SHARE, "rviz", "sam3i.rviz"])],
                condition=IfCondition(value["rviz"]),
            ),
        ]
    )
