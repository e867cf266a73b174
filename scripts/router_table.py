"""Prints what a wrong level costs, and what rules and router make of it: tables of docs/router.md.

    python scripts/router_table.py BUNDLE --scenes 160
    python scripts/router_table.py BUNDLE --data runs/table-val --vocabulary tabletop --scenes 40

Instructions that have something to find are asked at each of the three levels. BUNDLE is one that
`sam3i-edge router` wrote; without a router the rules stand alone. The lead of the router has a 95 % interval,
by drawing scenes again with replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from asked_scenes import from_command_line
from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.data.families import HELD_OUT, TYPED
from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.evaluate.metrics import overlap
from sam3i_edge.levels import LEVELS, Level, route
from sam3i_edge.pipeline.instruction import check_instruction
from sam3i_edge.pipeline.router import Router

WORDINGS = {"of training": TYPED, "never seen": dict.fromkeys(HELD_OUT, 1.0)}


@dataclass(frozen=True)
class Asked:
    """An instruction, and the IoU of its answer at each level."""

    scene: int
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
        for number, (scene, rng) in enumerate(scenes):
            asked += _asked(segmenter, number, scene, vocabulary, rng)
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
    if "router" in choosers:
        print("\n| wordings | lead of the router, gIoU | 95 % interval |\n|---|---|---|")
        for wordings in WORDINGS:
            leads: dict[int, list[float]] = {}
            for one in asked:
                if one.wordings == wordings:
                    lead = one.ious[choosers["router"](one.text)] - one.ious[route(one.text)]
                    leads.setdefault(one.scene, []).append(lead)
            mean, low, high = _interval(list(leads.values()))
            print(f"| {wordings} | {mean:+.3f} | {low:+.3f} to {high:+.3f} |")


def _interval(scenes: list[list[float]]) -> tuple[float, float, float]:
    """The mean, and the ends of its interval."""
    sums = np.array([(sum(one), len(one)) for one in scenes])
    drawn = np.random.default_rng(0).integers(0, len(sums), (4000, len(sums)))
    totals = sums[drawn].sum(1)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return float(sums[:, 0].sum() / sums[:, 1].sum()), float(low), float(high)


def _asked(
    segmenter: Segmenter, number: int, scene: Scene, vocabulary: Vocabulary, rng: np.random.Generator
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
            yield Asked(number, written.text, level, wordings, ious)


if __name__ == "__main__":
    main()
