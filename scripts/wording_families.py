"""Prints gIoU of the same questions in other words: the tables of wording families in docs/.

    python scripts/wording_families.py sam3i-nano --scenes 300
    python scripts/wording_families.py BUNDLE --data runs/table-val --vocabulary tabletop --scenes 300

Every question has something to find. It is asked in plain words and in each family that can say it, the level
given; the last column is the family's gIoU as a share of that of the plain wording of the same questions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from random import Random

import numpy as np

from asked_scenes import from_command_line
from sam3i_edge import Segmenter
from sam3i_edge.data.families import FAMILIES, HELD_OUT
from sam3i_edge.data.geometry import view_of
from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.truth import answer
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.data.wording import phrase_of
from sam3i_edge.evaluate.metrics import overlap
from sam3i_edge.levels import Level

_QUESTIONS: tuple[Level, ...] = ("simple", "complex", "simple", "complex")  # of a scene


def main() -> None:
    """Asks and prints."""
    model, vocabulary, scenes = from_command_line(__doc__, count=100, seed=20261128)
    segmenter = Segmenter(model)
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for scene, rng in scenes:
        encoded = segmenter.encode(scene.pixels())
        for level, targets, texts in _questions(scene, vocabulary, rng):
            wanted = scene.masks[list(targets)]
            found = {
                family: overlap(encoded.segment(text, level=level).masks, wanted).iou()
                for family, text in texts.items()
            }
            for family, value in found.items():
                pairs[family].append((found["plain"], value))
    print("| wording | in training | questions | gIoU plain | gIoU | share |\n|---|---|---|---|---|---|")
    for family in FAMILIES:
        plain, other = np.mean(pairs[family], axis=0) if pairs[family] else (np.nan, np.nan)
        kept = "no" if family in HELD_OUT else "yes"
        print(
            f"| {family} | {kept} | {len(pairs[family])} | {plain:.3f} | {other:.3f} | {other / plain:.2f} |"
        )


def _questions(
    scene: Scene, vocabulary: Vocabulary, rng: np.random.Generator
) -> Iterator[tuple[Level, tuple[int, ...], dict[str, str]]]:
    """Level, targets, and the texts by family; each family draws its words from the same seed."""
    for level in _QUESTIONS:
        written = write_instruction(scene, vocabulary, rng, level, wordings={"plain": 1.0})
        if written is None or written.query is None or not written.targets:
            continue
        found = answer(written.query, view_of(scene))
        if found is None:
            raise RuntimeError(f"{written.text!r} was proven and is not any more")
        words = int(rng.integers(2**32))
        phrase = phrase_of(written.query, found, vocabulary, Random(words))
        texts = {family: say(phrase, Random(words)) for family, say in FAMILIES.items()}
        yield level, written.targets, {family: text for family, text in texts.items() if text is not None}


if __name__ == "__main__":
    main()
