"""What `torchrun` starts twice in test_fsdp.py, with the folder of its four runs.

`plain` has a whole model on each rank and `split` half of one; `joined` goes on whole with a checkpoint of
`split`, and `parted` split with one of `plain`.
"""

import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import tiny
import torch
from torch.distributed.tensor import DTensor

from sam3i_edge.model.config import PRESETS
from sam3i_edge.train import run, trainer
from sam3i_edge.train.distributed import joined
from sam3i_edge.train.sharding import clip_gradients, local

PRESETS["tiny"] = replace(
    tiny.TINY,
    image_size=48,
    backbone="vit",
    patch_size=8,
    pretrain_image_size=16,
    window_size=2,
    vit_width=16,
    vit_depth=2,
    vit_heads=2,
    vit_mlp_dim=32,
    vit_global_blocks=(1,),
    decoder_layers=1,
)
# Split weights have the default memory format; convolutions round differently in the other one.
torch.channels_last = torch.contiguous_format
torch.set_num_threads(1)
out = Path(sys.argv[1])
shares = []


def watched(parameters, largest):
    """`clip_gradients`, noting which share of the trained elements this rank holds."""
    learned = list(parameters)
    assert all(isinstance(p, DTensor) for p in learned)
    shares.append(sum(local(p).numel() for p in learned) / sum(p.numel() for p in learned))
    return clip_gradients(learned, largest)


def copied(name, copy):
    def tell(progress):
        if (progress.kind, progress.stage, progress.step) == ("step", "2", 2):
            shutil.copytree(out / name, out / copy)  # with the checkpoint of step 1

    return tell


run.clip_gradients = watched
image, base, _, _, _, third = tiny.tiny_config().stages
config = replace(
    tiny.tiny_config(),
    stages=(
        replace(image, steps=1),  # smaller images, so that stage base builds the model anew
        replace(base, steps=1, image_size=0),
        replace(third, name="2", steps=3),  # ranks draw levels simple and complex at different steps
    ),
    log_every=1,
    checkpoint_every=1,
)
with joined(torch.device("cpu")) as ranks:
    trainer.joined = lambda _: nullcontext(ranks)  # a process can join its group once
    for name, shard, tell in (
        ("plain", False, copied("plain", "parted")),
        ("split", True, copied("split", "joined")),
        ("joined", False, None),
        ("parted", True, None),
    ):
        steps = len(shares)
        trainer.run_training(
            replace(config, shard=shard), out / name, tiny.words, device="cpu", progress=tell
        )
        assert (len(shares) > steps) == shard
    (out / f"shares{ranks.rank}.json").write_text(json.dumps(shares))
