"""What `torchrun` starts twice in test_distributed.py, with a folder, and "exchange" or "train"."""

import os
import signal
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import tiny
import torch
from torch import nn

from sam3i_edge.model.config import PRESETS
from sam3i_edge.train import trainer
from sam3i_edge.train.alignment import SAM3I_ALIGNMENT, alignment_loss
from sam3i_edge.train.distributed import joined
from sam3i_edge.train.projector import Projector

PRESETS["tiny"] = tiny.TINY
out, what = Path(sys.argv[1]), sys.argv[2]
rank = int(os.environ["RANK"])
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def gradients(ranks):
    used, unused = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3))
    used.grad = torch.full((2, 2), 1.0 + rank)
    if rank == 0:
        unused.grad = torch.ones(3)
    ranks.average_gradients([used, unused])
    assert torch.equal(used.grad, torch.full((2, 2), 1.5))
    assert torch.equal(unused.grad, torch.full((3,), 0.5))
    assert ranks.any(rank == 1, torch.device("cpu"))
    assert not ranks.any(False, torch.device("cpu"))
    value = torch.tensor(float(rank))
    ranks.from_first([value])
    assert value == 0


def gather(ranks):
    """Six samples in one process, then three on each of two ranks."""
    torch.manual_seed(0)
    maps, target, texts = torch.randn(6, 2, 5, 5), torch.rand(6, 5, 5).round(), torch.randn(6, 3, 32, 8)
    concept = torch.tensor([3, 1, 3, 3, 2, 1])
    projector, scale = Projector(8), nn.Parameter(torch.ones(5, 5))

    def loss(part, gather):
        features = torch.stack([projector(text) for text in texts[part].unbind(1)], 1)
        found = (maps[part] * scale, target[part], gather(features), gather(concept[part]), SAM3I_ALIGNMENT)
        return alignment_loss(*found)[0]

    learned = [*projector.parameters(), scale]
    whole = loss(slice(0, 6), lambda rows: rows)
    wanted = torch.autograd.grad(whole, learned)
    assert torch.equal(ranks.gather(concept[rank : rank + 2]), concept[[0, 1, 1, 2]])
    mine = loss(slice(3 * rank, 3 * rank + 3), ranks.gather)
    mine.backward()
    ranks.average_gradients(learned)
    parts = ranks.gather(mine.detach()[None])
    assert parts[0] != parts[1]
    torch.testing.assert_close(parts.mean(), whole.detach())
    for parameter, gradient in zip(learned, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def train(place, stop_at, end):
    """A run that is asked to stop at a place, and its last report."""
    told = []

    def tell(progress):
        told.append(progress.kind)
        if (progress.kind, progress.stage, progress.step) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    config = tiny.tiny_config()
    config = replace(config, stages=config.stages[1:4])
    trainer.run_training(config, out / place, tiny.words, device="cpu", progress=tell)
    assert told[-1:] == ([] if rank else [end])


with joined(torch.device("cpu")) as ranks:
    if what == "exchange":
        gradients(ranks)
        gather(ranks)
    else:
        trainer.joined = lambda _: nullcontext(ranks)  # a process can join its group once
        train("whole", None, "finished")
        train("parts", ("step", "detail", 2), "paused")
        train("parts", None, "finished")
