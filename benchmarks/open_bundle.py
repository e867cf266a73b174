"""Times opening one variant of a bundle that holds five: python benchmarks/open_bundle.py FOLDER [--runs N].

The folder is made where it is not there: sam3i-nano, and four copies of its float variant with 400 MiB of
zeros behind their weights.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.bundle.writing import new_bundle

_COPIES, _PADDING = 4, 400 << 20


def make(folder: Path) -> None:
    base = Bundle.open(find_bundle("sam3i-nano"))
    first = base.manifest.variants["onnx-fp32"]
    with new_bundle(folder, base=base) as made:
        variants = {}
        for number in range(_COPIES):
            place = made.path / f"onnx-copy{number}"
            shutil.copytree(made.path / "onnx-fp32", place)
            with (place / "weights.data").open("ab") as data:
                data.truncate((place / "weights.data").stat().st_size + _PADDING)
            graphs = {name: file.replace("onnx-fp32", place.name) for name, file in first.graphs.items()}
            update = {"precision": f"copy{number}", "graphs": graphs}
            variants[place.name] = first.model_copy(update=update)
        made.finish(variants=variants)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    if not given.folder.exists():
        make(given.folder)
    size = sum(record.bytes for record in Bundle.open(given.folder).manifest.files.values())
    times = []
    for _ in range(given.runs):
        began = time.perf_counter()
        Segmenter(given.folder, threads=1).close()
        times.append(time.perf_counter() - began)
    shown = ", ".join(f"{seconds:.2f}" for seconds in times)
    print(f"{size / 2**20:,.0f} MiB: median {statistics.median(times):.2f} s ({shown})")


if __name__ == "__main__":
    main()
