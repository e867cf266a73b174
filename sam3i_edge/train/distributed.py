"""Data-parallel training: one process a rank, started by `torchrun`, gradients averaged after every step.

On two cores, two ranks of one thread each take three quarters of the time of one process with two threads: the
tensors of a nano model are too small to share out inside an operator.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from sam3i_edge.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: 0..size-1; rank 0 validates, reports and writes.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the ranks, in one message.

        A parameter that this rank did not use counts with a gradient of 0.

        Args:
            parameters: float32, in the same order on every rank.
        """
        if self.size == 1:
            return
        learned = list(parameters)
        for parameter in learned:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in learned if p.grad is not None]
        message = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(message)
        message /= self.size
        parts = message.split([g.numel() for g in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set on some rank."""
        if self.size == 1:
            return flag
        count = torch.tensor(float(flag), device=device)
        distributed.all_reduce(count)
        return bool(count > 0)

    def from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites tensors with those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Returns when every rank has come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The ranks that `torchrun` announces in the environment, or one alone.

    Args:
        device: CUDA ranks talk over NCCL, others over Gloo.

    Raises:
        TrainingError: the environment names ranks, and they cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"WORLD_SIZE is set, but the ranks cannot meet: {error}") from error
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
