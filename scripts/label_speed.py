"""Prints what labelling costs: the table of docs/label.md.

    python scripts/label_speed.py [--pictures 1000] [--ray ADDRESS]

Drawn scenes are resized to 640 x 480 px and asked 5 instructions each, by the bundled model: in a plain loop
over `Segmenter.segment`, by `label` in this process, in two, and on a Ray cluster. A row has pictures a
second, and the CPU seconds a picture of all processes, which other work on the machine changes little. Every
way begins with a model that is not open; the plain loop writes nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from sam3i_edge import Segmenter
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.label.run import label
from sam3i_edge.label.shards import LabelConfig
from sam3i_edge.shards.map import one_by_one
from sam3i_edge.shards.processes import in_processes

_INSTRUCTIONS = ("circles", "red things", "the largest shape", "every small square", "what stands for love")


def main() -> None:
    """Draws, labels and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--ray")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
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
            from sam3i_edge.shards.cluster import on_cluster

            ways["label on Ray"] = lambda: label(config, Path(folder, "ray"), run=on_cluster(arguments.ray))
        print("| way | pictures a second | CPU seconds a picture |\n|---|---|---|")
        for name, way in ways.items():
            began, spent = time.perf_counter(), _cpu()
            way()
            seconds, cpu = time.perf_counter() - began, _cpu() - spent
            cpu_text = "(its own processes)" if "Ray" in name else f"{cpu / arguments.pictures:.3f}"
            print(f"| {name} | {arguments.pictures / seconds:.1f} | {cpu_text} |", flush=True)
        files = [Path(folder, out, "coco.json").read_bytes() for out in ("one", "two")]
        print("the same files" if len(set(files)) == 1 else "the files differ")


def _cpu() -> float:
    """CPU seconds of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
