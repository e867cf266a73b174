"""Prints how much more a query of the decoder looks at what its question compares with than at other things.

    python scripts/where_queries_look.py runs/drawn --parts "a3 seed 4" "a long" b
    python scripts/where_queries_look.py runs/drawn --weights BUNDLE/weights

Of drawn scenes and questions that name another object ("the star left of the ring"): attention of queries
on the target to queries on that object, over that to queries on any third one, as a geometric mean; 1 is as
much. By layer of the decoder, in the base's attention between queries and in the adapters': the mean of the
heads, and the head that has most.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curricula import PARTS, encoder
from noun_questions import Asked, questions
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.attention import Attention
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import load_model
from sam3i_edge.train.run_config import DataSource
from where_it_is_lost import overlap

OVERLAP = 0.3  # of a mask with the object that its query is on


def attentions(model: SAM3I) -> dict[str, Attention]:
    """Those between queries, by name; an adapter's ends in its level."""
    found: dict[str, Attention] = {}
    for name, module in model.detector.decoder.named_modules():
        if isinstance(module, Attention) and ("self_attn" in name or "query_adapter" in name):
            _, number, _, *level = name.split(".")
            kind = f"adapter, {level[0]}" if level else "base"
            found[f"layer {int(number) + 1}, {kind}"] = module
    return found


@torch.no_grad()
def looks(model: SAM3I, asked: list[Asked], adapted: bool) -> dict[str, list[list[float]]]:
    """By attention: of every question the log of the ratio, by head."""
    kept: dict[str, Tensor] = {}

    def keep(name: str, module: Attention, inputs: tuple[Tensor, ...]) -> None:
        q, k, _ = module.project(*inputs[:3])
        weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
        kept[name] = weights[:, :, 1:, 1:]  # the presence token comes first

    for name, module in attentions(model).items():
        module.register_forward_pre_hook(lambda module, inputs, name=name: keep(name, module, inputs))
    found: dict[str, list[list[float]]] = defaultdict(list)
    for one in asked:
        batch, rows = one.batch, [row for row, compared in enumerate(one.references) if compared]
        levels = batch.level[rows] if adapted else None
        out = model(batch.pixel_values, batch.input_ids[rows], levels, batch.image_index[rows], None)
        objects = batch.object_masks > 127
        for pair, row in enumerate(rows):
            here = (batch.object_image == batch.image_index[row]).nonzero()[:, 0]
            shared, best = overlap(out.mask_logits[pair][:, None] > 0, objects[here]).max(1)
            on = torch.where(shared > OVERLAP, here[best], -1)  # the object of each query
            target = torch.isin(on, batch.target_object[batch.target_pair == row])
            other = torch.isin(on, torch.tensor(one.references[row])) & ~target
            third = (on >= 0) & ~target & ~other
            if not (target.any() and other.any() and third.any()):
                continue
            level = LEVELS[int(batch.level[row])]
            for name, weights in kept.items():
                if "adapter" in name and not (adapted and name.endswith(level)):
                    continue
                seen = weights[pair][:, target]
                ratio = seen[:, :, other].mean((1, 2)) / seen[:, :, third].mean((1, 2))
                found[name.removesuffix(f", {level}")].append(ratio.log().tolist())
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path, help="of scripts/curricula.py")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[])
    parser.add_argument("--weights", type=Path, help="of another model that reads the same tokens")
    parser.add_argument("--batches", type=int, default=25, help="of 48 questions, few of them such")
    given = parser.parse_args()
    root = given.root
    models = [(part, root / part / "weights", PARTS[part].stage.route == "adapted") for part in given.parts]
    if given.weights:
        models.append(("other", given.weights, True))
    print("| | attention | questions | mean of heads | head with most |\n|---|---|---|---|---|")
    for part, weights, adapted in models:
        model = load_model(weights)
        side, mask_size = model.config.image_size, model.config.mask_size
        asked = questions(DataSource(vocabulary="shapes"), encoder(root), side, mask_size, given.batches)
        for name, ratios in looks(model, asked, adapted).items():
            mean, most = np.exp(np.mean(ratios)), np.exp(np.mean(ratios, 0)).max()
            print(f"| {part} | {name} | {len(ratios)} | {mean:.2f} | {most:.2f} |", flush=True)


if __name__ == "__main__":
    main()
