"""Accuracy of several models against what an instruction costs, as a table and as a picture of the front.

    sam3i-edge evaluate BUNDLE --precision int8 --data FOLDER --json > int8.json     # of each precision
    python scripts/models_front.py PICTURE.svg --models BUNDLE ... --evaluated int8.json ...

Asks all of them in turn the same questions at level simple, whole: picture array and text to masks as run
lengths, nothing cached. Time is that of the processor, one thread: on a busy machine it holds better than the
clock's.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean, median

from matplotlib import rc_context

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.files import write_whole
from sam3i_edge.levels import LEVELS
from sam3i_edge.measure.pareto import Configuration, front
from sam3i_edge.measure.plan import variant_bytes
from sam3i_edge.measure.plot import drawn, pareto
from sam3i_edge.measure.questions import questions


def spent(opened: list[Segmenter], rounds: int) -> list[list[float]]:
    """Milliseconds of processor time of each, question by question, after one that warms up."""
    found: list[list[float]] = [[] for _ in opened]
    asked = questions("simple")
    for question in asked[:1] + asked * rounds:
        for segmenter, times in zip(opened, found, strict=True):
            began = time.process_time()
            _ = segmenter.segment(question.image, question.text, level=question.level).mask_rle
            times.append(1e3 * (time.process_time() - began))
    return [times[1:] for times in found]


def main() -> None:
    """Prints the table and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--evaluated", nargs="+", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3, help="times 32 questions")
    given = parser.parse_args()
    bundles = [Bundle.open(find_bundle(name)) for name in given.models]
    by_name = {bundle.manifest.name: bundle for bundle in bundles}
    opened, accuracies = [], []
    for file in given.evaluated:
        report = json.loads(file.read_text(encoding="utf-8"))
        told = report["conditions"]
        opened.append(
            Segmenter(
                by_name[told["model"]].root,
                "cpu",
                told["precision"],
                threads=1,
                image_cache=0,
                instruction_cache=0,
            )
        )
        whole = {cell["level"]: cell["giou"] for cell in report["cells"] if cell["granularity"] == "overall"}
        accuracies.append([whole[level] for level in LEVELS])
    figures = [
        Configuration(
            name=f"{one.info.model} {one.info.precision}",
            giou=mean(accuracy),
            p90_ms=median(times),  # on a busy machine the slowest tenth tells of the machine
            size_bytes=variant_bytes(by_name[one.info.model], one.info.variant),
            memory_bytes=None,
            levels=len(LEVELS),
        )
        for one, accuracy, times in zip(opened, accuracies, spent(opened, given.rounds), strict=True)
    ]
    best = {one.name for one in front(figures)}
    print(f"| | gIoU {', '.join(LEVELS)} | mean | ms | MB | on the front |")
    print("|---|---|---|---|---|---|")
    for one, accuracy in zip(figures, accuracies, strict=True):
        cells = ", ".join(f"{value:.3f}" for value in accuracy)
        last = f"{one.size_bytes / 1e6:.1f} | {'yes' if one.name in best else ''}"
        print(f"| {one.name} | {cells} | {one.giou:.3f} | {one.p90_ms:.1f} | {last} |")
    with rc_context({"svg.fonttype": "none"}):  # letters stay letters: a tenth of the bytes
        figure = pareto(figures, time="processor time of an instruction on a new picture, median, ms")
        write_whole(given.picture, drawn(figure, "svg"))


if __name__ == "__main__":
    main()
