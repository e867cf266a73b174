"""Prints the resident memory of `segment` over a long video.

    python benchmarks/many_memory.py [FRAMES]

Frames of 640 x 480 px are drawn as they are asked for, go through the bundled model with two instructions and
a tracker each, and out as a video and as lines, as `segment clip.mp4 -i … -i … --track iou -o seen.mp4
-o seen.jsonl` does it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import psutil

from sam3i_edge import Segmenter
from sam3i_edge.inputs.find import Input
from sam3i_edge.inputs.picture import Picture
from sam3i_edge.many import Report, segment_many
from sam3i_edge.outputs.open import open_output

_INSTRUCTIONS = ("circles", "red things")


def main() -> None:
    """Segments and prints ten times on the way."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    process = psutil.Process()

    def told(report: Report) -> None:
        if report.pictures % max(1, count // 10) == 0:
            print(f"{report.pictures:,} frames: {process.memory_info().rss / 2**20:.1f} MiB", flush=True)

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        segmenter = stack.enter_context(Segmenter(image_cache=0))
        settings = {"instructions": list(_INSTRUCTIONS)}
        outputs = [
            stack.enter_context(open_output(Path(folder, name), settings))
            for name in ("seen.mp4", "seen.jsonl")
        ]
        video = Input(name="clip", pictures=lambda: _frames(count), count=count, moving=True)
        segment_many(segmenter, [video], _INSTRUCTIONS, outputs, tracker="iou", told=told)


def _frames(count: int) -> Iterator[Picture]:
    for number in range(count):
        image = np.full((480, 640, 3), 225, np.uint8)
        for index, color in enumerate(((220, 30, 30), (30, 60, 220), (30, 160, 40))):
            center = ((7 * number * (index + 1)) % 640, 100 + 130 * index)
            cv2.circle(image, center, 50, color, -1, cv2.LINE_AA)
        yield Picture(f"clip/{number:06d}", image, number / 30)


if __name__ == "__main__":
    main()
