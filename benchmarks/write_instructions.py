"""Instructions a second, and what they are: `python benchmarks/write_instructions.py [SOURCE VOCABULARY]`.

Without a source, 500 drawn scenes; else the first 500 pictures of one (COCO, scene file, …). Each is asked 12
times a level, the granularity left to the writer. Drawing and reading are not timed.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from itertools import islice

import numpy as np

import sam3i_edge
from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources import open_source
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.devices import machine
from sam3i_edge.levels import LEVELS

SCENES, ASKED = 500, 12


def scenes(arguments: list[str]) -> Iterator[Scene]:
    """Drawn ones, or those of a source."""
    if not arguments:
        yield from (draw_scene(np.random.default_rng((0x5CE, seed))) for seed in range(SCENES))
        return
    source = open_source(arguments[0], load_vocabulary(arguments[1]))
    yield from (source.scene(number) for number in range(min(len(source), SCENES)))


def main(arguments: list[str]) -> None:
    """Writes, and prints a table."""
    vocabulary = load_vocabulary(arguments[1] if arguments else "shapes")
    rng = np.random.default_rng(0)
    kinds: Counter[tuple[str, str]] = Counter()
    forms: Counter[tuple[str, str]] = Counter()
    asked, seconds = 0, 0.0
    for scene in islice(scenes(arguments), SCENES):
        start = time.process_time()
        written = [write_instruction(scene, vocabulary, rng, level) for level in LEVELS for _ in range(ASKED)]
        seconds += time.process_time() - start
        asked += len(written)
        kinds.update((item.level, item.granularity) for item in written if item is not None)
        forms.update((item.level, item.form) for item in written if item is not None)
    here = machine.inspect()
    print(f"{here.processor}, sam3i-edge {sam3i_edge.__version__}, {date.today()}, {vocabulary.name}")
    print(
        f"{kinds.total():,} written of {asked:,} asked, {kinds.total() / seconds:,.0f} a second of one core"
    )
    for title, counts in (("granularity", kinds), ("form", forms)):
        print(f"| level | {title} | share |\n|---|---|---|")
        for level in LEVELS:
            found = {name: count for (where, name), count in counts.items() if where == level}
            for name, count in sorted(found.items(), key=lambda row: -row[1]):
                print(f"| {level} | {name} | {count / sum(found.values()):.3f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
