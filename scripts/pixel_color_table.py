"""Prints the table of docs/data-sources.md: how often pixels tell an object's colour, and how often rightly.

python scripts/pixel_color_table.py table-val            # scenes with known colours
python scripts/pixel_color_table.py --drawn 400          # drawn shapes
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from sam3i_edge.data.pixel_color import COLOR, pixel_color
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources import open_source
from sam3i_edge.data.vocabulary import load_vocabulary


def scenes(given: argparse.Namespace) -> Iterator[Scene]:
    """The scenes that were asked for, one by one."""
    if given.source:
        source = open_source(given.source, load_vocabulary(given.vocabulary))
        yield from map(source.scene, range(len(source)))
    for number in range(given.drawn):
        yield draw_scene(np.random.default_rng((0xC0105, number)))


def main() -> None:
    """Counts the answers by the colour that is known, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="?", help="file or folder of scenes")
    parser.add_argument("--vocabulary", default="tabletop")
    parser.add_argument("--drawn", type=int, default=0, help="scenes to draw")
    given = parser.parse_args()
    answers: defaultdict[str | None, Counter[str | None]] = defaultdict(Counter)
    for scene in scenes(given):
        for thing in scene.objects:
            answers[thing.attributes.get(COLOR)][pixel_color(scene.pixels(), thing.mask)] += 1
    unknown = answers.pop(None, Counter())
    print("| colour | objects | answered | of its answers right |\n|---|---|---|---|")
    named: Counter[str | None] = sum(answers.values(), Counter())
    for color in sorted(filter(None, answers)):
        own, total = answers[color], answers[color].total()
        right = f"{own[color]} of {named[color]}" if named[color] else "none"
        print(f"| {color} | {total} | {1 - own[None] / total:.2f} | {right} |")
    asked, given_any = named.total(), named.total() - named[None]
    right = sum(answers[color][color] for color in answers)
    print(f"| all | {asked} | {given_any / asked:.2f} | {right} of {given_any} ({right / given_any:.3f}) |")
    if unknown:
        told = unknown.total() - unknown[None]
        print(f"\nOf {unknown.total()} objects without a known colour, {told} get one: {dict(unknown)}")


if __name__ == "__main__":
    main()
