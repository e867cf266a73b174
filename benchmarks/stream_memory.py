"""Memory over a long stream: `python benchmarks/stream_memory.py [FRAMES] [MODEL]`; needs /proc.

Drawn scenes come again and again, in frames of a camera's size, and the instruction changes now and then. The
first tenth of the frames warms up; what counts is the growth from there to the end.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

import sam3i_edge
from sam3i_edge import Segmenter
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.devices import machine

_INSTRUCTIONS = ("star", "every red shape", "the large circle left of a square", "the shape with a hole")


def resident_mib() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(frames: int, model: str) -> None:
    images = [draw_scene(np.random.default_rng(seed), (480, 640)).pixels() for seed in range(16)]
    with Segmenter(model) as segmenter, segmenter.stream(itertools.cycle(images), "star") as stream:
        segmenter.prepare()  # text encoders would open when their level is first asked
        info, here = segmenter.info, machine.inspect()
        print(f"{here.processor}, {here.system}, sam3i-edge {sam3i_edge.__version__}, {date.today()}")
        print(
            f"{info.model}, {info.device}, {info.runtime}, {info.precision}, {frames:,} frames of 640 x 480"
        )
        start, least, greatest = time.perf_counter(), float("inf"), 0.0
        for number, _ in zip(range(1, frames + 1), stream, strict=False):
            if number % 500 == 0:
                stream.instruction = _INSTRUCTIONS[number // 500 % len(_INSTRUCTIONS)]
            if number % (frames // 20) == 0:
                gc.collect()
                memory = resident_mib()
                if number >= frames // 10:
                    least, greatest = min(least, memory), max(greatest, memory)
                pace = number / (time.perf_counter() - start)
                print(f"{number:>7,} frames  {memory:7.1f} MiB  {pace:5.1f} frames/s", flush=True)
        print(
            f"from frame {frames // 10:,} on: {least:.1f} to {greatest:.1f} MiB, {greatest - least:.1f} apart"
        )


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, sys.argv[2] if len(sys.argv) > 2 else "sam3i-nano"
    )
