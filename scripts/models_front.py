"""Accuracy of several models against what an instruction costs, as a table and as a picture of the front.

    python scripts/models_front.py PICTURE.svg BUNDLE ... --data FOLDER [--precision fp32,int8]

Asks each bundle in each precision about FOLDER, as `sam3i-edge evaluate` does, then all of them in turn the
same questions at level simple, whole: picture array and text to masks as run lengths, nothing cached. Time is
that of the processor, one thread: on a busy machine it holds better than the clock's.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean

import numpy as np
from matplotlib import rc_context

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.data.annotations import ANNOTATIONS, IMAGES, read_annotations
from sam3i_edge.evaluate.run import evaluate
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
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--precision", default="fp32,int8")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--rounds", type=int, default=1, help="times 32 questions")
    given = parser.parse_args()
    records = read_annotations(given.data / ANNOTATIONS)
    opened, accuracies, sizes = [], [], []
    for name in given.bundles:
        for precision in given.precision.split(","):
            segmenter = Segmenter(
                name, "cpu", precision, given.runtime, threads=1, image_cache=0, instruction_cache=0
            )
            report = evaluate(segmenter, records, given.data / IMAGES)
            accuracies.append([report.cell(level).giou or 0.0 for level in LEVELS])
            sizes.append(variant_bytes(Bundle.open(find_bundle(name)), segmenter.info.variant))
            opened.append(segmenter)
    figures = [
        Configuration(
            name=f"{one.info.model} {one.info.precision}",
            giou=mean(accuracy),
            p90_ms=float(np.quantile(times, 0.9)),
            size_bytes=size,
            memory_bytes=None,
            levels=len(LEVELS),
        )
        for one, accuracy, size, times in zip(
            opened, accuracies, sizes, spent(opened, given.rounds), strict=True
        )
    ]
    best = {one.name for one in front(figures)}
    print(f"| | gIoU {', '.join(LEVELS)} | mean | p90, ms | MB | on the front |")
    print("|---|---|---|---|---|---|")
    for one, accuracy in zip(figures, accuracies, strict=True):
        cells = ", ".join(f"{value:.3f}" for value in accuracy)
        last = f"{one.size_bytes / 1e6:.1f} | {'yes' if one.name in best else ''}"
        print(f"| {one.name} | {cells} | {one.giou:.3f} | {one.p90_ms:.1f} | {last} |")
    with rc_context({"svg.fonttype": "none"}):  # letters stay letters: a tenth of the bytes
        figure = pareto(figures, time="processor time of an instruction on a new picture, p90, ms")
        write_whole(given.picture, drawn(figure, "svg"))


if __name__ == "__main__":
    main()
