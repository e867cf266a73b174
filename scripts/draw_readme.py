"""Draws a picture for README.md: one scene, four sentences, what a model finds.

    python scripts/draw_readme.py docs/images/demo.png [--seed 171]
    python scripts/draw_readme.py table.png --model BUNDLE --data tabletop-data/held-out --seed 7

Every answer is compared with what was drawn. A seed with a wrong one is refused, so that the picture shows
what the words mean; how often answers are right is in docs/nano.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from sam3i_edge import Segmenter
from sam3i_edge.data.instructions import Instruction, write_instruction
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources.scene_file import SceneFileSource
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.masks import overlay
from sam3i_edge.result import Result

SIZE, OBJECTS = (360, 500), 8  # 480 pixels and more are not enlarged
ASKED = (("concept", "all"), ("simple", "one"), ("simple", "subset"), ("complex", "one"))
LEAST_IOU = 0.9
LONGEST = 44  # letters that fit in a caption's line


def scene_of(seed: int, data: Path | None) -> tuple[Scene, list[Instruction]]:
    """A drawn scene, or that of this number in a scene file of tables, and an instruction of each kind."""
    rng = np.random.default_rng(seed)
    if data is None:
        scene, vocabulary = draw_scene(rng, SIZE, objects=OBJECTS), load_vocabulary("shapes")
    else:
        vocabulary = load_vocabulary("tabletop")
        scene = SceneFileSource(data, vocabulary).scene(seed)
    chosen: list[Instruction] = []
    for level, kind in ASKED:
        written = (write_instruction(scene, vocabulary, rng, level, kind) for _ in range(20))
        fitting = [
            one for one in written if one and one.text.islower() and len(one.text) <= LONGEST
            and one.targets not in [other.targets for other in chosen]
        ]  # fmt: skip
        if not fitting:
            raise SystemExit(f"the scene of seed {seed} allows no {kind!r} instruction at level {level}")
        chosen.append(fitting[0])
    return scene, chosen


def wrong(result: Result, drawn: Scene, asked: Instruction) -> str | None:
    """What is wrong with an answer, or None."""
    if len(result) != len(asked.targets):
        return f"{len(result)} found, {len(asked.targets)} drawn"
    target = np.logical_or.reduce(drawn.masks[list(asked.targets)], axis=0)
    iou = (result.merged & target).sum() / (result.merged | target).sum()
    return None if iou >= LEAST_IOU else f"mask IoU {iou:.2f}"


def main() -> None:
    """Asks, compares and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=171, help="of a drawn scene; with --data its number")
    parser.add_argument("--model", default="sam3i-nano")
    parser.add_argument("--data", type=Path, help="folder of a scene file of tables")
    given = parser.parse_args()
    drawn, instructions = scene_of(given.seed, given.data)
    cells = []
    with Segmenter(given.model) as segmenter, TemporaryDirectory() as folder:
        scene = segmenter.encode(drawn.pixels())
        for asked in instructions:
            result = scene.segment(asked.text, level=asked.level)
            problem = wrong(result, drawn, asked)
            if problem:
                raise SystemExit(f"seed {given.seed}, {asked.text!r}: {problem}; take another seed")
            cells.append(cv2.imread(str(result.save(Path(folder) / "cell.png", dim=False)))[:, :, ::-1])
    rows = [np.hstack(cells[:2]), np.hstack(cells[2:])]
    overlay.write(np.vstack(rows), given.out)


if __name__ == "__main__":
    main()
