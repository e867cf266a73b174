"""Draws what the targets of one bundle find: the same picture and instructions, side by side.

    python scripts/draw_targets.py BUNDLE OUT.png [--precision int8] [--seed 2]

The first column is float32 in ONNX Runtime, the others are the precision in ONNX Runtime, OpenVINO and the
evaluator of Core ML packages. Below each answer stands how it differs from the first column's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sam3i_edge.agreement import Instances, Pair, compare
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.evaluate.assignment import linear_assignment
from sam3i_edge.export.coreml.mil_reference import MilGraphs
from sam3i_edge.export.staged import FileGraphs, GraphSource, answers
from sam3i_edge.masks import overlay
from sam3i_edge.masks.iou import mask_iou

SIZE, OBJECTS = (320, 448), 8
ASKED = (("simple", "one"), ("complex", "all"), ("complex", "none"))
SHRINK = 2  # the overlay enlarges small pictures


def pairs_of(seed: int) -> list[Pair]:
    """One drawn picture with an instruction of each kind in `ASKED`."""
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, SIZE, objects=OBJECTS)
    pairs = []
    for level, kind in ASKED:
        written = write_instruction(scene, load_vocabulary("shapes"), rng, level, kind)
        if written is None:
            raise SystemExit(f"the picture of seed {seed} allows no {kind!r} instruction: take another seed")
        pairs.append(Pair(scene.pixels(), written.text, level, written.granularity))
    return pairs


def sources_of(bundle: Bundle, precision: str) -> dict[str, GraphSource]:
    """Title of a column -> its graphs."""
    return {
        "ONNX Runtime fp32": FileGraphs(bundle.graphs("onnx-fp32"), "onnxruntime"),
        f"ONNX Runtime {precision}": FileGraphs(bundle.graphs(f"onnx-{precision}"), "onnxruntime"),
        f"OpenVINO {precision}": FileGraphs(bundle.graphs(f"openvino-{precision}"), "openvino"),
        f"Core ML {precision}, evaluated": MilGraphs(bundle.graphs(f"coreml-{precision}")),
    }


def difference(reference: Instances, found: Instances) -> str:
    """How an answer differs from the first column's, in a few words."""
    if not len(reference.scores) or not len(found.scores):
        return f"{len(found.scores)} found, fp32 {len(reference.scores)}"
    agreement = compare([reference], [found])
    count = "same count" if agreement.same_count == 1 else f"{len(found.scores)} found"
    return (
        f"{count}, mask IoU at least {agreement.min_iou:.3f}, "
        f"score {agreement.score:.3f}, box {agreement.box_px:.2f} px"
    )


def in_order_of(reference: Instances, found: Instances) -> Instances:
    """An answer with its instances in the order of another's, so that equal colours mean equal things."""
    if not len(reference.scores) or not len(found.scores):
        return found
    pairs = linear_assignment(-mask_iou(reference.masks, found.masks, empty=1.0))
    order = [int(n) for n in pairs[1]]
    order += [n for n in range(len(found.scores)) if n not in order]
    return Instances(scores=found.scores[order], boxes=found.boxes[order], masks=found.masks[order])


def main() -> None:
    """Asks every target and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("out", type=Path)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--seed", type=int, default=2)
    given = parser.parse_args()
    bundle = Bundle.open(find_bundle(given.bundle))
    manifest, pairs = bundle.manifest, pairs_of(given.seed)
    found = {
        title: answers(source, pairs, bundle.tokenizer(), manifest.preprocessing, manifest.thresholds.score)
        for title, source in sources_of(bundle, given.precision).items()
    }
    first = next(iter(found))
    rows = []
    for number, pair in enumerate(pairs):
        cells = []
        for title, column in found.items():
            one = in_order_of(found[first][number], column[number])
            same = f"{len(one.scores)} found" if title == first else difference(found[first][number], one)
            note = f"{title}: {same}"
            cells.append(
                overlay.draw(pair.image, one.masks, one.boxes, one.scores, title=pair.text, note=note)
            )
        height = max(cell.shape[0] for cell in cells)
        rows.append(np.hstack([np.pad(c, ((0, height - len(c)), (0, 8), (0, 0))) for c in cells]))
    picture = np.vstack(rows)
    height, width = (side // SHRINK * SHRINK for side in picture.shape[:2])
    shape = (height // SHRINK, SHRINK, width // SHRINK, SHRINK, 3)
    small = picture[:height, :width].reshape(shape).mean((1, 3)).round().astype(np.uint8)
    overlay.write(small, given.out)


if __name__ == "__main__":
    main()
