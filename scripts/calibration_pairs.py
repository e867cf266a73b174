"""Prints the table of calibration pairs in docs/results/quantization.md: how few would do.

    python scripts/calibration_pairs.py sam3i-nano [--recipe int8] [--count 320 --count 40] [--draws 3]

Each row is a quantized model whose activations were measured on so many pairs, beside the float model on the
gate's 240 pairs or on 360 others that neither calibration nor the gate asks. Draw 1 is the one that
`quantize` takes. All run in torch, on one thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sam3i_edge.agreement import Agreement, Instances, Pair, compare, model_pairs
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.export.staged import TorchGraphs, answers
from sam3i_edge.model.weights import load_model, read_config
from sam3i_edge.quantize.ptq import Prepared
from sam3i_edge.quantize.recipes import RECIPES

COUNTS = (320, 160, 80, 40)
SETS = ((240, 0), (360, 3))  # pairs and seed; calibration draws with 1, 101, 201, ...
HEADER = (
    "pairs", "draw", "images", "calibration s", "asked", "same count", "IoU mean", "IoU min", "score",
    "score 99 %", "box px", "box px 99 %",
)  # fmt: skip


def cells(found: Agreement) -> tuple[str, ...]:
    """Cells under `HEADER`, from "asked" on."""
    return (
        str(found.pairs),
        f"{found.same_count:.1%}",
        f"{found.mean_iou:.4f}",
        f"{found.min_iou:.3f}",
        f"{found.score:.3f}",
        f"{found.score_p99:.3f}",
        f"{found.box_px:.2f}",
        f"{found.box_px_p99:.2f}",
    )


def main() -> None:
    """Quantizes with each count of each draw and prints two rows of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--recipe", choices=RECIPES, default="int8")
    parser.add_argument("--count", type=int, action="append", help=f"default: {COUNTS}")
    parser.add_argument("--draws", type=int, default=3, help="of the calibration pairs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bundle = Bundle.open(find_bundle(given.bundle))
    weights = bundle.weights()
    if weights is None:
        parser.error(f"{given.bundle} has no float weights to quantize")
    config, manifest, tokenizer = read_config(weights), bundle.manifest, bundle.tokenizer()
    boxes = next(iter(manifest.variants.values())).boxes

    def encode(text: str) -> NDArray[np.int64]:
        return tokenizer.encode(text).ids

    def ask(source: Path, pairs: list[Pair]) -> list[Instances]:
        graphs = TorchGraphs(source, config, boxes)
        return answers(graphs, pairs, tokenizer, manifest.preprocessing, manifest.thresholds.score, boxes)

    sets = [model_pairs(count, config, boxes, seed) for count, seed in SETS]
    floats = [ask(weights, pairs) for pairs in sets]
    for line in (HEADER, ("---",) * len(HEADER)):
        print(f"| {' | '.join(line)} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for draw in range(1, 1 + given.draws):
            for count in given.count or COUNTS:
                seen = model_pairs(count, config, boxes, 100 * draw - 99)
                start = time.process_time()
                prepared = Prepared(
                    load_model(weights), RECIPES[given.recipe], seen, encode, manifest.preprocessing,
                    boxes=boxes,
                )  # fmt: skip
                seconds = time.process_time() - start
                prepared.quantize().save(spec := Path(folder) / f"{count}-{draw}.safetensors")
                first = (count, draw, prepared.seen.images, f"{seconds:.0f}")
                for pairs, wanted in zip(sets, floats, strict=True):
                    row = (*first, *cells(compare(wanted, ask(spec, pairs))))
                    print(f"| {' | '.join(map(str, row))} |", flush=True)
                print(f"{count} pairs, draw {draw}: done", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
