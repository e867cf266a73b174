"""Prints what a wrong level costs, and what rules and router make of it: tables of docs/router.md.

    python scripts/router_table.py BUNDLE --scenes 40
    python scripts/router_table.py BUNDLE --data runs/table-val --vocabulary tabletop --scenes 40

Instructions that have something to find are asked at each of the three levels. BUNDLE is one that
`sam3i-edge router` wrote; without a router the rules stand alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from asked_scenes import from_command_line
from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.data.families import HELD_OUT, TRAINED
from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.evaluate.metrics import overlap
from sam3i_edge.levels import LEVELS, Level, route
from sam3i_edge.pipeline.instruction import check_instruction
from sam3i_edge.pipeline.router import Router

WORDINGS = {"of training": TRAINED, "never seen": dict.fromkeys(HELD_OUT, 1.0)}


@dataclass(frozen=True)
class Asked:
    """An instruction, and the IoU of its answer at each level."""

    text: str
    level: Level
    wordings: str
    ious: dict[Level, float]


def main() -> None:
    """Asks and prints."""
    model, vocabulary, scenes = from_command_line(__doc__, count=40, seed=20261129)
    asked: list[Asked] = []
    with Segmenter(model, threads=1) as segmenter:
        bundle = Bundle.open(segmenter.info.bundle)
        for scene, rng in scenes:
            asked += _asked(segmenter, scene, vocabulary, rng)
    choosers: dict[str, Callable[[str], Level]] = {"rules": route}
    if (file := bundle.router()) is not None:
        router = Router(file, bundle.tokenizer())
        choosers["router"] = lambda text: router.level(check_instruction(text))
    print(f"| written at | instructions | {' | '.join(f'gIoU at {level}' for level in LEVELS)} |")
    print("|---|---|---|---|---|")
    for level in LEVELS:
        some = [one.ious for one in asked if one.level == level]
        figures = (f"{np.mean([ious[at] for ious in some]):.3f}" for at in LEVELS)
        print(f"| {level} | {len(some)} | {' | '.join(figures)} |")
    print("\n| wordings | instructions | chosen by | right | gIoU |\n|---|---|---|---|---|")
    for wordings in WORDINGS:
        some_asked = [one for one in asked if one.wordings == wordings]
        best = np.mean([one.ious[one.level] for one in some_asked])
        print(f"| {wordings} | {len(some_asked)} | the level it is written at | 1.000 | {best:.3f} |")
        for name, choose in choosers.items():
            chosen = [(one, choose(one.text)) for one in some_asked]
            right = np.mean([level == one.level for one, level in chosen])
            giou = np.mean([one.ious[level] for one, level in chosen])
            print(f"| {wordings} | {len(some_asked)} | {name} | {right:.3f} | {giou:.3f} |")


def _asked(
    segmenter: Segmenter, scene: Scene, vocabulary: Vocabulary, rng: np.random.Generator
) -> Iterator[Asked]:
    encoded = segmenter.encode(scene.pixels())
    for wordings, weights in WORDINGS.items():
        for level in LEVELS:
            written = write_instruction(scene, vocabulary, rng, level, wordings=weights)
            if written is None or not written.targets or (level == "concept" and wordings == "never seen"):
                continue  # a concept has no wordings
            if wordings == "never seen" and written.family not in HELD_OUT:
                continue
            wanted = scene.masks[list(written.targets)]
            ious = {at: overlap(encoded.segment(written.text, level=at).masks, wanted).iou() for at in LEVELS}
            yield Asked(written.text, level, wordings, ious)


if __name__ == "__main__":
    main()
