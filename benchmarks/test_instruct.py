"""How fast `sam3i-edge instruct` is: one process, two, and a Ray cluster of two workers of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam3i_edge.data.instruct.run import instruct
from sam3i_edge.data.instruct.shards import InstructConfig
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources import write_scene_file
from sam3i_edge.shards.map import Map, one_by_one
from sam3i_edge.shards.processes import in_processes

_PICTURES = 500


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scene_file(folder, (draw_scene(np.random.default_rng((0, n))) for n in range(_PICTURES)))
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster, its workers as urgent as other processes: Ray gives them 15."""
    pytest.importorskip("ray", reason="extra scale is not installed")
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray._common.utils import reset_ray_address
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made.address
    for node in made.list_all_nodes():
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    reset_ray_address()


@pytest.mark.parametrize("how", ["one process", "two processes", "Ray, two workers"])
def test_instruct(how: str, scenes: Path, benchmark: Any, tmp_path: Path, request: Any) -> None:
    run: Map = one_by_one if how == "one process" else in_processes(2)
    if how.startswith("Ray"):
        address = request.getfixturevalue("cluster")
        from sam3i_edge.shards.cluster import on_cluster

        run = on_cluster(address)
    config = InstructConfig(source=str(scenes), vocabulary="shapes")
    out = tmp_path / "out"
    report = benchmark.pedantic(
        lambda: instruct(config, out, run=run),
        setup=lambda: shutil.rmtree(out, ignore_errors=True),
        rounds=1,
    )
    benchmark.extra_info["instructions a second"] = round(report.instructions / benchmark.stats.stats.min)
