"""The node as a process of its own, and what the tests ask of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from ros_client import Client, Process

from sam3i_edge import Segmenter
from sam3i_edge.data.scenes import draw_scene

PARAMETERS = Path(__file__).parent.parent / "sam3i_ros" / "config" / "sam3i.yaml"


@pytest.fixture(scope="session", autouse=True)
def context() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.fixture(scope="session")
def scene() -> np.ndarray:
    """[240, 320, 3] uint8 RGB with stars."""
    for seed in range(100):
        drawn = draw_scene(np.random.default_rng(seed), (240, 320), objects=6)
        if sum(item.category == "star" for item in drawn.objects) >= 2:
            return drawn.pixels()
    raise AssertionError("no scene has two stars")


@pytest.fixture(scope="session")
def segmenter() -> Iterator[Segmenter]:
    with Segmenter(threads=1, image_cache=0) as opened:
        yield opened


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One node for all tests but those of its end."""
    process = Process(
        tmp_path_factory.mktemp("node") / "log", "--params-file", str(PARAMETERS), "-p", "threads:=1"
    )
    yield process
    process.end(signal.SIGINT)


@pytest.fixture(scope="session")
def client(process: Process) -> Iterator[Client]:
    client = Client("sam3i")
    yield client
    client.node.destroy_node()


@pytest.fixture
def active(client: Client) -> Client:
    """The client of a node in state active, whose parameters are the file's but for the instruction."""
    client.activate()
    return client
