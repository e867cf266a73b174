"""Prints what a model of tables gets wrong, and at which least score: figures of docs/results/table-model.md.

    python scripts/where_it_is_lost.py WEIGHTS tokenizer.json tabletop-data/held-out [drawn] [--adapted]
    python scripts/where_it_is_lost.py --masks tabletop-data/held-out

The first asks 48 questions of each of `--batches` batches, with and without something to find, on the grid
of the mask logits. By least score: gIoU by level, how often it is right whether something is there, how often
of what is not there, and how often a score lies within .015 of the least one ("near"). Then, by level:
whether the best query is on a right thing, whether nothing was found, and by how much masks on right things
overlap. The second prints the IoU of perfect masks, enlarged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from sam3i_edge.data.batch import Batch, BatchShape
from sam3i_edge.data.sources.scene_file import SceneFileSource
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.detector import Prediction
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import load_model
from sam3i_edge.pipeline.tokenizer import Tokenizer
from sam3i_edge.train.run_config import DataSource, StageConfig, TrainConfig
from sam3i_edge.train.run_data import RunData

SCORES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
SIDES = (48, 64, 128)
NEAR = 0.015  # a score so near to the least one may cross it by rounding


def batches_of(data: str, tokenizer: Path, sizes: ModelConfig, count: int) -> list[Batch]:
    """Validation batches of drawn scenes, or of all pictures of a folder."""
    weights = dict.fromkeys(LEVELS, 1.0)
    source = DataSource() if data == "drawn" else DataSource(path=data, validation=data)
    stage = StageConfig(name="base", steps=1, route="unadapted", trainable=("base",), level_weights=weights)
    shape = BatchShape(
        images=8, instructions=6, mask_instructions=6, image_size=sizes.image_size, mask_size=sizes.mask_size
    )
    tokens = Tokenizer.from_file(tokenizer, start_id=1, end_id=2)
    made = RunData(TrainConfig(data=(source,), stages=(stage,))).batches(
        shape,
        lambda text: tokens.encode(text).ids,
        stream=1000,
        level_weights=weights,
        none_share=0.25,
        part="validation",
    )
    return [made[number] for number in range(count)]


def overlap(found: Tensor, wanted: Tensor) -> Tensor:
    """IoU of masks bool [..., M, M]; 0 where both are empty."""
    both, either = (found & wanted).sum((-2, -1)), (found | wanted).sum((-2, -1))
    return both / either.clamp(min=1)


@torch.no_grad()
def answers(model: SAM3I, batches: list[Batch], adapted: bool) -> list[Prediction]:
    """Of every batch."""
    return [
        model(batch.pixel_values, batch.input_ids, batch.level if adapted else None, batch.image_index, None)
        for batch in batches
    ]


def figures(batches: list[Batch], answered: list[Prediction], score: float) -> dict[str, float]:
    """Means over all questions, by name."""
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for batch, out in zip(batches, answered, strict=True):
        scores = out.logits[-1].sigmoid() * out.presence[-1].sigmoid()[:, None]
        masks, objects = out.mask_logits > 0, batch.object_masks > 127
        for pair in range(len(batch.level)):
            targets = batch.target_object[batch.target_pair == pair]
            kept = masks[pair][scores[pair] > score]
            add("right", float(bool(len(targets)) == bool(len(kept))))
            add("near", float(((scores[pair] - score).abs() < NEAR).any()))
            add("presence", float(bool(len(targets)) == bool(out.presence[-1][pair] > 0)))
            if not len(targets):
                add("nothing", float(not len(kept)))
                add("nothing, by presence", float(out.presence[-1][pair] <= 0))
                continue
            name = LEVELS[int(batch.level[pair])]
            union = batch.union_masks(torch.tensor([pair]))[0] > 0.5
            add(name, float(overlap(kept.any(0), union)) if len(kept) else 0.0)
            add(f"{name}: found nothing", float(not len(kept)))
            here = (batch.object_image == batch.image_index[pair]).nonzero()[:, 0]
            best = overlap(masks[pair][scores[pair].argmax()], objects[here]).argmax()
            add(f"{name}: best query right", float(here[best] in targets))
            for mask in kept:
                each = overlap(mask, objects[here])
                if here[each.argmax()] in targets:
                    add(f"{name}: overlap of right masks", float(each.max()))
    return {name: sum(values) / len(values) for name, values in found.items()}


def perfect_masks(folder: Path) -> None:
    """Prints what perfect masks of each side overlap with at the picture's size, worst things too."""
    source = SceneFileSource(folder, load_vocabulary("tabletop"))
    for side in SIDES:
        by: dict[str, list[float]] = {}
        for number in range(len(source)):
            for item in source.scene(number).objects:
                small = cv2.resize(item.mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
                large = cv2.resize(small, item.mask.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
                iou = (large & item.mask).sum() / (large | item.mask).sum()
                by.setdefault(item.category, []).append(float(iou))
        mean = np.mean([iou for ious in by.values() for iou in ious])
        worst = sorted((float(np.mean(ious)), name) for name, ious in by.items())[:5]
        print(f"| {side} | {mean:.3f} | {', '.join(f'{name} {iou:.2f}' for iou, name in worst)} |")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("tokenizer", type=Path, nargs="?")
    parser.add_argument("data", nargs="*", help="folders of scene files, or drawn")
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--adapted", action="store_true", help="each question through its level's adapters")
    parser.add_argument("--masks", type=Path, help="folder of a scene file")
    given = parser.parse_args()
    if given.masks:
        perfect_masks(given.masks)
        return
    model = load_model(given.weights)
    for data in given.data:
        batches = batches_of(data, given.tokenizer, model.config, given.batches)
        answered = answers(model, batches, given.adapted)
        for score in SCORES:
            told = figures(batches, answered, score)
            short = (*LEVELS, "right", "nothing", "presence", "nothing, by presence", "near")
            print(f"{data} {score}: " + ", ".join(f"{name} {told[name]:.3f}" for name in short))
            if score in (0.4, 0.5):
                print("  " + ", ".join(f"{n} {v:.3f}" for n, v in sorted(told.items()) if ":" in n))


if __name__ == "__main__":
    main()
