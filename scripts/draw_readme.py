"""Draws a picture for the documentation: one scene, four sentences, what a model finds.

    python scripts/draw_readme.py drawn.png --seed 171
    TABLES="--model sam3i-table --data sam3i_edge/assets/tables"
    python scripts/draw_readme.py docs/images/demo.jpg $TABLES --scene 3 --seed 64
    python scripts/draw_readme.py docs/images/wrong.jpg $TABLES --scene 1 --wrong

Every answer is compared with what was drawn. A seed with a wrong one is passed over, so that the picture
shows what the words mean; with --wrong one with a right answer is, so that it shows how the model errs. How
many were passed over is printed; how often answers are right is in docs/nano.md and docs/table.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from sam3i_edge import Segmenter
from sam3i_edge.data.instructions import Instruction, write_instruction
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources.scene_file import SceneFileSource
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.masks import overlay
from sam3i_edge.result import Result

SIZE, OBJECTS = (360, 500), 8  # 480 pixels and more are not enlarged
ASKED = (("concept", "all"), ("simple", "one"), ("simple", "one"), ("complex", "one"))
LEAST_IOU, TRIES = 0.85, 1_000
SUPPRESS = 0.5  # of two masks that overlap by more the better one stays
LONGEST = 44  # letters that fit in a caption's line


def scene_of(seed: int, data: Path | None, number: int) -> tuple[Scene, list[Instruction]] | None:
    """A drawn scene, or that of this number in a scene file of tables, and instructions for it, or None."""
    rng = np.random.default_rng(seed)
    if data is None:
        scene, vocabulary = draw_scene(rng, SIZE, objects=OBJECTS), load_vocabulary("shapes")
    else:
        vocabulary = load_vocabulary("tabletop")
        scene = SceneFileSource(data, vocabulary).scene(number)
    chosen: list[Instruction] = []
    for level, kind in ASKED:
        written = (write_instruction(scene, vocabulary, rng, level, kind) for _ in range(20))
        fitting = [
            one for one in written if one and one.text.islower() and len(one.text) <= LONGEST
            and one.text not in [other.text for other in chosen]
        ]  # fmt: skip
        if not fitting:
            return None
        chosen.append(fitting[0])
    return scene, chosen


def wrong(result: Result, drawn: Scene, asked: Instruction) -> bool:
    """Whether an answer has another count, or masks that fit too little."""
    target = np.logical_or.reduce(drawn.masks[list(asked.targets)], axis=0)
    iou = (result.merged & target).sum() / (result.merged | target).sum()
    return len(result) != len(asked.targets) or bool(iou < LEAST_IOU)


def answers(
    segmenter: Segmenter, drawn: Scene, instructions: list[Instruction], folder: Path, all_wrong: bool
) -> list[NDArray[np.uint8]]:
    """The pictures of the answers, or none where they are not all right, or not all wrong."""
    scene, cells = segmenter.encode(drawn.pixels()), []
    for asked in instructions:
        result = scene.segment(asked.text, level=asked.level, suppress=SUPPRESS)
        if wrong(result, drawn, asked) != all_wrong:
            return []
        cells.append(cv2.imread(str(result.save(folder / "cell.png", dim=False)))[:, :, ::-1])
    return cells


def main() -> None:
    """Asks, compares and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--seed", type=int, default=0, help="the first to try, of what is asked and of a drawn scene"
    )
    parser.add_argument("--scene", type=int, default=0, help="with --data: number of the scene")
    parser.add_argument("--model", default="sam3i-nano")
    parser.add_argument("--data", type=Path, help="folder of a scene file of tables")
    parser.add_argument("--wrong", action="store_true", help="four wrong answers instead of four right ones")
    given = parser.parse_args()
    with Segmenter(given.model) as segmenter, TemporaryDirectory() as folder:
        for seed in range(given.seed, given.seed + TRIES):
            asked = scene_of(seed, given.data, given.scene)
            cells = asked and answers(segmenter, *asked, Path(folder), given.wrong)
            if cells:
                break
        else:
            raise SystemExit(f"no seed of {given.seed} to {seed} has such answers")
    print(f"seed {seed}, after {seed - given.seed} without such answers")
    rows = [np.hstack(cells[:2]), np.hstack(cells[2:])]
    overlay.write(np.vstack(rows), given.out)


if __name__ == "__main__":
    main()
