"""Prints the resident memory of `segment` over a long video.

    python benchmarks/many_memory.py [FRAMES] [MODEL]

A video of 160 x 120 px is written to a file, read again, asked one instruction with a tracker, and comes out
as lines, as by `segment clip.avi circles --track iou -o seen.jsonl`. MODEL is as of `segment`, or `tiny`:
graphs of the tests, which are not trained and take no time, so that what remains is everything else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import psutil

from sam3i_edge import Segmenter
from sam3i_edge.inputs.find import find_inputs
from sam3i_edge.many import Report, segment_many
from sam3i_edge.outputs.open import open_output

_SIZE = (160, 120)  # width, height, px


def main(frames: int, model: str) -> None:
    """Writes, segments, and prints ten times on the way."""
    process = psutil.Process()

    def told(report: Report) -> None:
        if report.pictures % max(1, frames // 10) == 0:
            mib, cpu = process.memory_info().rss / 2**20, sum(process.cpu_times()[:2])
            print(f"| {report.pictures:,} | {mib:.1f} | {cpu:.0f} |", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.avi")
        _write(clip, frames)
        if model == "tiny":
            sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
            from tiny_bundle import write_tiny_bundle

            model = str(write_tiny_bundle(Path(folder, "tiny")).root)
        settings = {"instructions": ["circles"]}
        print("| frames | resident memory, MiB | CPU s |\n|---|---|---|")
        with (
            Segmenter(model, threads=1, image_cache=0) as segmenter,
            open_output(Path(folder, "seen.jsonl"), settings) as lines,
        ):
            inputs = find_inputs([str(clip)], stdin=lambda: b"")
            segment_many(segmenter, inputs, ["circles"], [lines], tracker="iou", told=told)


def _write(path: Path, frames: int) -> None:
    """Three circles that move."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, _SIZE)
    for number in range(frames):
        image = np.full((*_SIZE[::-1], 3), 225, np.uint8)
        for index, color in enumerate(((220, 30, 30), (30, 60, 220), (30, 160, 40))):
            center = ((2 * number * (index + 1)) % _SIZE[0], 20 + 40 * index)
            cv2.circle(image, center, 15, color, -1, cv2.LINE_AA)
        writer.write(image)
    writer.release()


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, sys.argv[2] if len(sys.argv) > 2 else "sam3i-nano"
    )
