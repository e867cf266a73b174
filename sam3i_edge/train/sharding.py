"""Training of models that one device cannot hold: every rank keeps a part of each parameter (FSDP2).

Source: Fully Sharded Data Parallel (Zhao et al. 2023, arXiv:2304.11277), in torch's `fully_shard`. A layer's
parameters are put together on all ranks when it runs, and given back after it. Gradients, optimiser state and
averaged weights stay split as the parameters are, along their first axis.

Every rank must call the layers in the same order and equally often, else the ranks wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sam3i_edge.model.decoder import DecoderLayer
from sam3i_edge.model.fusion_encoder import FusionLayer
from sam3i_edge.model.geometry_encoder import GeometryLayer
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.text_encoder import TextBlock
from sam3i_edge.model.vit import ViTBlock

T = TypeVar("T")

_LAYERS = (ViTBlock, TextBlock, FusionLayer, DecoderLayer, GeometryLayer)


class Sharded(nn.Module):
    """A model and what only training needs, spread over the ranks.

    The parameters of each repeated layer are one group, all others (embeddings, heads, the pyramid) the
    group of this module. Between two calls the parameters are `DTensor`s that hold this rank's part.

    Args:
        model: on the CPU or on `device`, in the default memory format, equal on all ranks; it is changed in
            place.
        parts: further modules with parameters.
        device: the ranks' kind of device; a CUDA rank uses its current one.
        size: number of ranks.
    """

    def __init__(self, model: SAM3I, parts: Iterable[nn.Module], device: torch.device, size: int) -> None:
        super().__init__()
        self.model, self.parts = model, nn.ModuleList(parts)
        model.every_level = True
        mesh = init_device_mesh(device.type, (size,))
        for layer in model.modules():
            if isinstance(layer, _LAYERS):
                fully_shard(layer, mesh=mesh)
        # Given back after the call too, so that the parameters between two calls are always parts.
        fully_shard(self, mesh=mesh, reshard_after_forward=True)

    def forward(self, work: Callable[[], T]) -> T:
        """What `work` gives, which may use any parameter; tensors to differentiate must be in a tuple."""
        return work()


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """`torch.nn.utils.clip_grad_norm_` of parameters that are split; one number is sent.

    A parameter without a gradient gets one of 0, as `Ranks.average_gradients` does.

    Args:
        parameters: `DTensor`s, in the same order on every rank.
        largest: L2 norm.

    Returns:
        The L2 norm of all gradients before, float32 [].
    """
    learned = list(parameters)
    for parameter in learned:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [local(p.grad) for p in learned if p.grad is not None]
    square = torch.nn.utils.get_total_norm(gradients).square()
    distributed.all_reduce(square)
    norm = square.sqrt()
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm


@torch.no_grad()
def local(tensor: Tensor) -> Tensor:
    """This rank's part, which shares its memory; a tensor that is not split, as it is."""
    if isinstance(tensor, DTensor):
        own: Tensor = tensor.to_local()
        return own
    return tensor


def split_like(whole: Tensor, target: Tensor) -> Tensor:
    """A whole tensor, equal on all ranks, split as `target` is; as it is where that is not split."""
    if not isinstance(target, DTensor):
        return whole
    return distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None)


def optimizer_state(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The saved state of an optimiser with whole tensors, split as its parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        index: {
            name: split_like(value, parameters[index]) if value.ndim else value
            for name, value in values.items()
        }
        for index, values in saved["state"].items()
    }
    return {**saved, "state": state}


@torch.no_grad()
def gathered(value: Any, *, keep: bool) -> Any:
    """A copy of nested dicts on the CPU whose split tensors are whole; every rank must call it.

    One tensor at a time is whole on the device.

    Args:
        value: as in a checkpoint.
        keep: whether this rank wants it.

    Returns:
        The copy; what it holds is undefined where it is not kept.
    """
    if isinstance(value, dict):
        return {name: gathered(item, keep=keep) for name, item in value.items()}
    if isinstance(value, DTensor):
        whole = value.full_tensor()
        return whole.cpu() if keep else None
    return value.cpu() if isinstance(value, Tensor) and keep else value
