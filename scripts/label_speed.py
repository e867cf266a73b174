"""Prints what labelling costs: the table of docs/label.md.

    python scripts/label_speed.py [--pictures 1000] [--ray]

Drawn scenes are resized to 640 x 480 px and asked 5 instructions each, by the bundled model: in a plain loop
over `Segmenter.segment`, by `label` in this process, in two, and with --ray on a Ray cluster of two nodes of
one core, whose start counts. A row has the wall seconds, pictures a second, the CPU seconds a picture of
all processes, which other work on the machine changes little, and the machine's load meanwhile. Every way
begins with a model that is not open; the plain loop writes nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
import psutil

from sam3i_edge import Segmenter
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.label.run import label
from sam3i_edge.label.shards import LabelConfig
from sam3i_edge.shards.map import one_by_one
from sam3i_edge.shards.processes import in_processes

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

_Done = TypeVar("_Done")
_INSTRUCTIONS = ("circles", "red things", "the largest shape", "every small square", "what stands for love")


def main() -> None:
    """Draws, labels and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--ray", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        pictures = Path(folder, "pictures")
        pictures.mkdir()
        for number in range(arguments.pictures):
            scene = draw_scene(np.random.default_rng(number))
            pixels = cv2.resize(scene.pixels()[..., ::-1], (640, 480), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(pictures / f"{number:06d}.jpg"), pixels)
        config = LabelConfig(
            pictures=str(pictures),
            instructions=_INSTRUCTIONS,
            threads=1,
            shard=max(1, arguments.pictures // 16),
        )

        def plain() -> None:
            with Segmenter(threads=1, image_cache=0) as segmenter:
                for path in sorted(pictures.iterdir()):
                    for result in segmenter.segment(path, list(_INSTRUCTIONS), threshold=0.35):
                        assert result.mask_rle is not None

        ways: dict[str, Callable[[], object]] = {
            "plain loop": plain,
            "label, one process": lambda: label(config, Path(folder, "one"), run=one_by_one),
            "label, two workers": lambda: label(
                config, Path(folder, "two"), run=in_processes(2, start="spawn")
            ),
        }
        if arguments.ray:
            ways["label, Ray with two nodes"] = lambda: label(
                config, Path(folder, "ray"), run=partial(_on_ray, stack)
            )
        print("| way | wall s | pictures a second | CPU seconds a picture | load |\n|---|---|---|---|---|")
        for name, way in ways.items():
            began, spent = time.perf_counter(), _cpu()
            load = _measured_load(way)
            seconds, cpu = time.perf_counter() - began, _cpu() - spent
            rate, each = arguments.pictures / seconds, cpu / arguments.pictures
            print(f"| {name} | {seconds:.0f} | {rate:.2f} | {each:.3f} | {load:.1f} |", flush=True)
        files = {path.read_bytes() for path in Path(folder).glob("*/coco.json")}
        print("the same files" if len(files) == 1 else "the files differ")


def _on_ray(stack: ExitStack, work: Callable[[int], _Done], numbers: Sequence[int], /) -> Iterator[_Done]:
    """A `Map` of a head that does no work and two nodes with a core each, until the stack ends."""
    # Its workers have niceness 15 otherwise.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster

    from sam3i_edge.shards.cluster import on_cluster

    store = {"object_store_memory": 200_000_000}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store}
    )
    stack.callback(_end, cluster)  # when its processor time was looked at
    for _ in range(2):
        cluster.add_node(num_cpus=1, **store)
    yield from on_cluster(cluster.address)(work, numbers)


def _end(cluster: Cluster) -> None:
    from ray._common.utils import reset_ray_address

    for node in cluster.list_all_nodes():
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    reset_ray_address()


def _measured_load(way: Callable[[], object]) -> float:
    """Does it, and gives the mean of the machine's load of a minute meanwhile."""
    loads, done = [os.getloadavg()[0]], threading.Event()

    def look() -> None:
        while not done.wait(5):
            loads.append(os.getloadavg()[0])

    looking = threading.Thread(target=look)
    looking.start()
    try:
        way()
    finally:
        done.set()
        looking.join()
    return statistics.mean(loads)


def _cpu() -> float:
    """CPU seconds of this process, of those that it began, and of those that they waited for."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(one.user + one.system + one.children_user + one.children_system for one in times)


if __name__ == "__main__":
    main()
