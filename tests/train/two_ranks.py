"""What `torchrun` starts twice in test_distributed.py: arguments are the run's folder and where to be stopped."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import tiny
import torch
from torch import nn

from sam3i_edge.model.config import PRESETS
from sam3i_edge.train.distributed import joined
from sam3i_edge.train.trainer import run_training

PRESETS["tiny"] = tiny.TINY
out, stop_at = Path(sys.argv[1]), sys.argv[2]
rank = int(os.environ["RANK"])
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

if stop_at == "gradients":
    with joined(torch.device("cpu")) as ranks:
        used, unused = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3))
        used.grad = torch.full((2, 2), 1.0 + rank)
        if rank == 0:
            unused.grad = torch.ones(3)
        ranks.average_gradients([used, unused])
        assert torch.equal(used.grad, torch.full((2, 2), 1.5))
        assert torch.equal(unused.grad, torch.full((3,), 0.5))
        assert ranks.any(rank == 1, torch.device("cpu")) and not ranks.any(False, torch.device("cpu"))
        value = torch.tensor(float(rank))
        ranks.from_first([value])
        assert value == 0
else:
    told = []

    def tell(progress):
        told.append(progress.kind)
        if f"{progress.kind} {progress.stage} {progress.step}" == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    config = tiny.tiny_config()
    run_training(
        replace(config, stages=config.stages[1:4]), out, tiny.words, device="cpu", progress=tell
    )
    assert bool(told) == (rank == 0)
    if stop_at == "never":
        assert rank or told[-1] == "finished"
