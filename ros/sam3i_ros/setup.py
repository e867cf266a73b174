"""Installs the package as colcon expects it."""

from glob import glob

from setuptools import setup

NAME = "sam3i_ros"

setup(
    name=NAME,
    version="0.2.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *((f"share/{NAME}/{folder}", glob(f"{folder}/*")) for folder in ("launch", "config", "rviz")),
    ],
    install_requires=["setuptools", "sam3i-edge"],
    zip_safe=False,
    maintainer="The sam3i-edge authors",
    maintainer_email="sam3i-edge@example.com",
    description="A ROS 2 lifecycle node that segments what a sentence describes.",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"sam3i_node = {NAME}.node:main"]},
)
