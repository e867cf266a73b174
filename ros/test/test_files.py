"""The files that come with the node, against the node."""

from __future__ import annotations

from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from sam3i_ros.parameters import declared

SHARE = Path(get_package_share_directory("sam3i_ros"))
NODE = (Path(__file__).parent.parent / "sam3i_ros" / "sam3i_ros" / "node.py").read_text()


def test_the_parameter_file_holds_every_parameter_and_its_default():
    (parameters,) = yaml.safe_load((SHARE / "config" / "sam3i.yaml").read_text()).values()
    assert parameters["ros__parameters"] == {name: default for name, default, _ in declared()}


def test_the_view_shows_topics_of_the_node():
    view = yaml.safe_load((SHARE / "rviz" / "sam3i.rviz").read_text())
    for display in view["Visualization Manager"]["Displays"]:
        assert f'"{display["Topic"]["Value"]}"' in NODE


def test_launch_files_are_installed_and_compile():
    launches = sorted(SHARE.glob("launch/*.launch.py"))
    assert [path.name for path in launches] == ["bag.launch.py", "sam3i.launch.py"]
    for path in launches:
        compile(path.read_text(), path.name, "exec")
