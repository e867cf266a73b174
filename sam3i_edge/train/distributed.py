"""Several processes that train together, started by `torchrun`, one a rank.

Here they share no part of the model: gradients are averaged after every step. `sharding` splits the model.

On two cores, two ranks of one thread each take four fifths of the time of one process with two threads: the
tensors of a nano model are too small to share out inside an operator.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

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
        parts = torch.split(message, [g.numel() for g in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks in their order, for a loss that every rank computes alike on all of them.

        Gradients flow to this rank's own rows, times `size`: after `average_gradients` every parameter then
        has the gradient that one process with all rows would give it. The backward pass sends nothing.

        Args:
            rows: [n, ...] of any type, n and shape equal on every rank.

        Returns:
            [size * n, ...]; `rows` itself for one rank.
        """
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self.rank, self.size)  # type: ignore[no-untyped-call]
        return gathered

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set on some rank."""
        if self.size == 1:
            return flag
        count = torch.tensor(float(flag), device=device)
        distributed.all_reduce(count)
        return bool(count > 0)

    def from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites tensors with those of rank 0, but for those that the ranks hold parts of."""
        if self.size > 1:
            for tensor in tensors:
                if not isinstance(tensor, DTensor):
                    distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Returns when every rank has come here."""
        if self.size > 1:
            distributed.barrier()


class _Gather(torch.autograd.Function):
    """`Ranks.gather`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, size: int) -> Tensor:
        """The rows of all ranks."""
        ctx.own, ctx.size = slice(rank * len(rows), (rank + 1) * len(rows)), size
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(size)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The own rows' gradient: what the other ranks would send for them is the same once more each."""
        return grad[ctx.own] * ctx.size, None, None


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The ranks that `torchrun` announces in the environment, or one alone.

    Args:
        device: CUDA ranks talk over NCCL, others over Gloo. CUDA without an index becomes the device of this
            rank's number on its machine.

    Raises:
        TrainingError: the environment names ranks, and they cannot be reached, or have no device each.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if device.type == "cuda" and device.index is None:
        number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= count:
            raise TrainingError(
                f"process {number + 1} on this machine finds {count} CUDA devices: start as many as there are"
            )
        torch.cuda.set_device(number)
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"WORLD_SIZE is set, but the ranks cannot meet: {error}") from error
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
