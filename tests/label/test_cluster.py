"""A Ray cluster of this machine labels what one process labels, to the byte."""

from __future__ import annotations

import os

import numpy as np
import psutil
import pytest
from PIL import Image

from sam3i_edge.label.run import label
from sam3i_edge.label.shards import LabelConfig

pytest.importorskip("ray", reason="extra scale is not installed")
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # Ray gives its workers 15

from ray._common.utils import reset_ray_address
from ray.cluster_utils import Cluster

from sam3i_edge.shards.cluster import on_cluster


@pytest.fixture
def cluster():
    """A head that does no work, and two nodes of a core each."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
    yield cluster
    for node in cluster.list_all_nodes():  # its own `shutdown` would start another
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    reset_ray_address()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_cluster_labels_what_one_process_labels_though_an_actor_is_killed(cluster, tmp_path, tiny_bundle):
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(4)
    for number in range(40):
        pixels = rng.integers(0, 256, (30, 44, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02d}.png")
    config = LabelConfig(
        pictures=str(tmp_path / "photos"),
        instructions=("star", "every large square"),
        model=str(tiny_bundle.root),
        threads=1,
        threshold=0.4,
        shard=2,
    )
    label(config, tmp_path / "alone", review=True)
    killed = []

    def kill(words, share):
        """An actor, in the middle of its shard."""
        if share > 0.2 and not killed:
            workers = [p for p in psutil.process_iter(["name", "cmdline"]) if _is_actor(p)]
            assert workers, "no actor works"
            for worker in workers[:1]:
                worker.kill()
            killed.extend(worker.pid for worker in workers[:1])

    label(config, tmp_path / "cluster", review=True, run=on_cluster(cluster.address), progress=kill)
    assert killed
    for name in ("coco.json", "review.jsonl"):
        assert (tmp_path / "cluster" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    shards = [sorted((tmp_path / out / "shards").glob("*.jsonl")) for out in ("cluster", "alone")]
    assert [p.name for p in shards[0]] == [p.name for p in shards[1]]
    assert [p.read_bytes() for p in shards[0]] == [p.read_bytes() for p in shards[1]]


def _is_actor(process) -> bool:
    return process.uids().real == os.getuid() and "ray::MapWorker(" in " ".join(process.info["cmdline"] or ())
