"""Agreement of quantized models with the float one on pairs that the gate does not ask, drawn or of a folder.

    python scripts/gate_on_more_pairs.py BUNDLE SPEC [SPEC ...] [--pairs 600] [--seed 3 | --data DIR]

BUNDLE holds the float weights; a SPEC is a quantized model as `quantize` and `train --qat` write it, such as
BUNDLE/quant/int8.safetensors, or the name of a recipe, which is applied here, whole, whatever the gate says.
All run in torch, on one thread.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sam3i_edge.agreement import Instances, compare, model_pairs
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.export.quantized_bundle import post_training
from sam3i_edge.export.staged import TorchGraphs, answers
from sam3i_edge.model.weights import read_config
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.quantize.recorded_pairs import recorded_pairs


def main() -> None:
    """Prints a line for each quantized model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("specs", nargs="+")
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--seed", type=int, default=3, help="0 is the gate's, 1 calibration's")
    parser.add_argument("--data", type=Path, help="folder in SAM3-I's layout, as `instruct` writes it")
    parser.add_argument(
        "--calibration", type=Path, help="folder as for --data, for recipes; else drawn pairs"
    )
    parser.add_argument("--keep-float", action="append", default=[], help="for recipes: pattern of layers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bundle = Bundle.open(find_bundle(given.bundle))
    weights = bundle.weights()
    if weights is None:
        parser.error(f"{given.bundle} has no float weights to compare with")
    config, manifest = read_config(weights), bundle.manifest
    boxes = next(iter(manifest.variants.values())).boxes
    if given.data:
        pairs = recorded_pairs(given.data, given.pairs)
    else:
        pairs = model_pairs(given.pairs, config, boxes, seed=given.seed)

    def ask(source: Path) -> list[Instances]:
        graphs = TorchGraphs(source, config, boxes)
        return answers(
            graphs, pairs, bundle.tokenizer(), manifest.preprocessing, manifest.thresholds.score, boxes
        )

    floats = ask(weights)
    with TemporaryDirectory() as made:
        for name in given.specs:
            spec = Path(name)
            if name in RECIPES:
                seen = recorded_pairs(given.calibration) if given.calibration else None
                quantized, _ = post_training(
                    bundle, RECIPES[name], calibration=seen, keep_float=given.keep_float, sensitivity=False
                )
                spec = Path(made) / f"{name}.safetensors"
                quantized.save(spec)
            print(f"{name}: {compare(floats, ask(spec))}", flush=True)


if __name__ == "__main__":
    main()
