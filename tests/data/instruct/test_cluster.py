"""Ray's own processes take seconds to start, so one cluster serves all that is asked of it."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

import psutil
import pytest

from sam3i_edge.data.instruct.run import instruct
from sam3i_edge.data.instruct.shards import InstructConfig, work
from sam3i_edge.errors import DataError, RuntimeUnavailable

pytest.importorskip("ray", reason="extra scale is not installed")
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # Ray gives its workers 15

from ray._common.utils import reset_ray_address
from ray.cluster_utils import Cluster

from sam3i_edge.shards.cluster import on_cluster


@pytest.fixture(scope="module")
def address():
    """A cluster of this machine: a head that does no work, and two workers of a core each."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
    yield cluster.address
    for node in cluster.list_all_nodes():  # its own `shutdown` would start another
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    reset_ray_address()


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_cluster_writes_what_one_process_writes_though_a_worker_is_killed(
    address, tmp_path, write_scene_folder
):
    folder = write_scene_folder(tmp_path / "scenes", 24)
    config = InstructConfig(source=str(folder), vocabulary="shapes", shard=2)
    instruct(config, tmp_path / "alone")
    killed = []

    def kill(words, share):
        """One worker in the middle of its shard."""
        if share > 0 and not killed:
            workers = [p for p in psutil.process_iter(["name", "cmdline"]) if _works(p)]
            for worker in workers[:1]:
                worker.kill()
                killed.append(worker.pid)

    instruct(config, tmp_path / "cluster", run=on_cluster(address), progress=kill)
    assert killed
    assert contents(tmp_path / "cluster") == contents(tmp_path / "alone")
    with pytest.raises(DataError, match=r"^vocabulary none: No such file"):
        list(on_cluster(address)(partial(work, replace(config, vocabulary="none")), [0]))


def _works(process) -> bool:
    return process.uids().real == os.getuid() and "ray::MapWorker(" in " ".join(process.info["cmdline"] or ())


def test_an_address_without_a_cluster_is_one_line():
    with pytest.raises(RuntimeUnavailable, match=r"^no Ray cluster at '127\.0\.0\.1:9' \(.*refused\): start"):
        list(on_cluster("127.0.0.1:9")(partial(work, InstructConfig(source="none")), [0]))
