"""Writes docs/results/data-engine.md: what `sam3i-edge instruct` writes for three sources, and how fast.

    pytest benchmarks/test_instruct.py --benchmark-json TIMES
    python scripts/instruct_figures.py TABLES --times TIMES

TABLES is a folder of rendered scenes (`make tabletop-data`). The sources are as many drawn scenes, rendered
ones, and the rendered ones again as COCO's instances, which tell categories and masks alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sam3i_edge.data.annotations import IMAGES
from sam3i_edge.data.instruct.report import InstructReport
from sam3i_edge.data.instruct.run import instruct
from sam3i_edge.data.instruct.shards import InstructConfig, shard_count
from sam3i_edge.data.instructions import GRANULARITIES
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources import write_scene_file
from sam3i_edge.data.sources.scene_file import SCENES, SceneFileSource
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.files import write_whole
from sam3i_edge.levels import LEVELS
from sam3i_edge.masks import rle

OUT = Path(__file__).parents[1] / "docs" / "results" / "data-engine.md"


@dataclass(frozen=True)
class Row:
    """What came of a source."""

    name: str
    report: InstructReport
    cells: Counter[tuple[str, str]]
    second: float  # instructions of a second of one core


def main() -> None:
    """Writes the sources, their instructions and the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--times", type=Path, required=True, help="what the benchmark wrote")
    given = parser.parse_args()
    cv2.setNumThreads(0)  # one core
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = (draw_scene(np.random.default_rng((0, n))) for n in range(given.count))
        write_scene_file(folder / "drawn", drawn)
        with (given.tables / SCENES).open(encoding="utf-8") as lines:
            kept = "".join(itertools.islice(lines, given.count))
        (folder / "tables").mkdir()
        (folder / "tables" / IMAGES).symlink_to((given.tables / IMAGES).resolve())
        write_whole(folder / "tables" / SCENES, kept)
        write_coco(folder / "tables", folder / "coco")
        rows = [
            figures("drawn shapes", folder / "drawn", "shapes"),
            figures("rendered tables", folder / "tables", "tabletop"),
            figures("the tables as COCO's JSON", folder / "coco" / "instances.json", "tabletop"),
        ]
    write_whole(OUT, page(rows, given.count) + shared_out(given.times))


def write_coco(tables: Path, out: Path) -> None:
    """The scenes as COCO's instances."""
    source = SceneFileSource(tables, load_vocabulary("tabletop"))
    names = list(load_vocabulary("tabletop").categories)
    images, annotations = [], []
    for number in range(len(source)):
        scene = source.scene(number)
        height, width = scene.size
        images.append({"id": number, "file_name": source.file_name(number), "width": width, "height": height})
        for item in scene.objects:
            mask = rle.encode(item.mask)
            entry = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": names.index(item.category),
            }
            entry |= {"iscrowd": 0, "bbox": list(rle.box(mask)), "area": rle.area(mask), "segmentation": mask}
            annotations.append(entry)
    out.mkdir()
    (out / IMAGES).symlink_to((tables / IMAGES).resolve())
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_whole(out / "instances.json", json.dumps(content))


def figures(name: str, source: Path, vocabulary: str) -> Row:
    """Writes a source's instructions, and times the work of one core."""
    config = InstructConfig(source=str(source), vocabulary=vocabulary)
    cells: Counter[tuple[str, str]] = Counter()
    seconds = 0.0

    def timed(work, numbers):
        nonlocal seconds
        for number in numbers:
            began = time.process_time()
            shard = work(number)
            seconds += time.process_time() - began
            for line in shard.lines.splitlines():
                cells.update((level, granularity) for level, granularity, *_ in json.loads(line)["texts"])
            yield shard

    shard_count(config)  # opened
    with tempfile.TemporaryDirectory(dir=source.parent) as out:
        report = instruct(config, Path(out) / "out", run=timed)
    return Row(name, report, cells, report.instructions / seconds)


def page(rows: list[Row], count: int) -> str:
    """The page."""
    lines = [
        "# What the data engine writes",
        "",
        f"`python scripts/instruct_figures.py TABLES --times TIMES` wrote this page, of {count} pictures a",
        "source, at most 12 instructions a picture, and seed 0.",
        "",
        "| | " + " | ".join(row.name for row in rows) + " |",
        "|---|" + "---|" * len(rows),
    ]

    def add(name: str, *values: str) -> None:
        lines.append(f"| {name} | " + " | ".join(values) + " |")

    add("pictures with instructions", *(f"{row.report.pictures:,}" for row in rows))
    add("instructions", *(f"{row.report.instructions:,}" for row in rows))
    for level in LEVELS:
        for granularity in GRANULARITIES:
            shares = [row.cells[level, granularity] / row.report.instructions for row in rows]
            if any(shares):
                add(f"{level}, {granularity}", *map(percent, shares))
    add("wait for a person", *(f"{row.report.review:,}" for row in rows))
    add("asked in vain for what a picture gives no occasion for", *(f"{vain(row.report):,}" for row in rows))
    add("instructions a second of one core", *(f"{row.second:,.0f}" for row in rows))
    lines += ["", "What is asked, share of the instructions:", ""]
    forms = sorted({form for row in rows for form in row.report.form})
    lines += ["| | " + " | ".join(row.name for row in rows) + " |", "|---|" + "---|" * len(rows)]
    for form in forms:
        shares = [row.report.form.get(form, 0) / row.report.instructions for row in rows]
        add(form, *map(percent, shares))
    cores = len(os.sched_getaffinity(0))
    lines += [
        "",
        "Seconds are processor time, reading and checking the pictures included, on a virtual machine with",
        f"{cores} cores.",
    ]
    return "\n".join(lines) + "\n"


def shared_out(times: Path) -> str:
    """The benchmark's table."""
    found = json.loads(times.read_text())["benchmarks"]
    lines = [
        "",
        "Shared out on the same cores, otherwise idle: `pytest benchmarks/test_instruct.py`, 500 drawn",
        "scenes, start and joining included. Ray starts processes of its own.",
        "",
        "| | seconds | instructions a second |",
        "|---|---|---|",
    ]
    for row in found:
        second = row["extra_info"]["instructions a second"]
        lines.append(f"| {row['param']} | {row['stats']['min']:.1f} | {second:,} |")
    return "\n".join(lines) + "\n"


def percent(share: float) -> str:
    """For a cell; nothing for nothing."""
    return f"{100 * share:.1f} %" if share else ""


def vain(report: InstructReport) -> int:
    """How often a picture gave no occasion."""
    return sum(count for why, count in report.dropped.items() if why.startswith("no occasion"))


if __name__ == "__main__":
    main()
