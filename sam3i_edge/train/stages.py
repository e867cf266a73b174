"""What a stage does to the model: what is frozen, how it starts, how its learning rate runs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sam3i_edge.errors import TrainingError
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import group_of
from sam3i_edge.train.muon import MuonAdamW, takes
from sam3i_edge.train.run_config import StageConfig
from sam3i_edge.train.sharding import local, split_like


def enter(model: SAM3I, stage: StageConfig) -> None:
    """Prepares the weights once, before the first step of a stage.

    Stage 1: the adapted mask embedders start as copies of the base's. Stage 2: bridge and complex start from
    simple. Nothing is changed where the stage goes on with what there is (`renew`).
    """
    if not stage.renew:
        return
    if stage.name == "1":
        model.copy_mask_embedder()
    elif stage.name == "2":
        model.fork_bridge()


def freeze(model: SAM3I, stage: StageConfig) -> dict[str, nn.Parameter]:
    """Sets what learns, and gives it by name.

    A module whose parameters all learn is put in training mode; everything else in evaluation mode, so that a
    frozen base keeps its batch statistics and has no dropout.

    Raises:
        TrainingError: the model has no parameter of a group of the stage.
    """
    groups = {group_of(name) for name, _ in model.named_parameters()}
    for group in stage.trainable:
        if group not in groups | {"image"}:
            raise TrainingError(
                f"stage {stage.name!r} trains {group!r}, but the model has only {', '.join(groups)}"
            )
    for name, parameter in model.named_parameters():
        image = name.startswith("image_encoder.")
        learns = group_of(name) in stage.trainable and not (image and stage.freeze_image)
        parameter.requires_grad_(learns or (image and "image" in stage.trainable))
    model.eval()
    for module in model.modules():
        own = [parameter.requires_grad for parameter in module.parameters()]
        if own and all(own):
            module.train()
    if "base" in stage.trainable:
        model.train()
        model.image_encoder.train(not stage.freeze_image)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def learning_rate(stage: StageConfig, step: int) -> float:
    """The learning rate of step 0..steps-1: linear to `lr` over the warm-up, then half a cosine to 0."""
    warmup = min(stage.warmup, stage.steps - 1)
    if step < warmup:
        return stage.lr * (step + 1) / (warmup + 1)
    return stage.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (stage.steps - warmup)))


def optimizer(
    parameters: dict[str, nn.Parameter], weight_decay: float, text_lr: float = 1.0, *, muon: bool = False
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and kernels, none on norms, biases and other vectors.

    Args:
        parameters: by name.
        weight_decay: of the matrices and kernels.
        text_lr: "lr_scale" of the groups of the text encoder; the others' is 1.
        muon: train large matrices and kernels by Muon instead; see `train.muon`.
    """
    groups: list[dict[str, Any]] = []
    for scale, text in ((1.0, False), (text_lr, True)) if text_lr != 1 else ((1.0, None),):
        own = {n: p for n, p in parameters.items() if text in (None, n.startswith("text_encoder."))}
        turned = {n: p for n, p in own.items() if muon and takes(n, p)}
        decayed = [p for n, p in own.items() if p.ndim > 1 and n not in turned]
        plain = [p for p in own.values() if p.ndim <= 1]
        by_muon = {"params": list(turned.values()), "muon": True}
        groups.append(by_muon | {"weight_decay": weight_decay, "lr_scale": scale})
        groups.append({"params": decayed, "weight_decay": weight_decay, "lr_scale": scale})
        groups.append({"params": plain, "weight_decay": 0.0, "lr_scale": scale})
    groups = [group for group in groups if group["params"]]
    # Fused: on a CPU it takes 5 ms where a loop over 400 small tensors takes 20.
    return (MuonAdamW if muon else torch.optim.AdamW)(groups, lr=0.0, fused=True)


class Average:
    """An exponential moving average of the weights that learn, and of their batch statistics.

    Args:
        model: after `freeze`; its present weights start the average.
        decay: weight of the past, after a warm-up of (1 + n) / (10 + n) at the n-th update.
    """

    def __init__(self, model: SAM3I, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values = {name: value.detach().clone() for name, value in _moving(model).items()}

    @torch.no_grad()
    def update(self, model: SAM3I) -> None:
        """Takes the model's weights in."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        moving = _moving(model)
        floating = [name for name, value in moving.items() if value.is_floating_point()]
        averages, weights = ([local(values[n]) for n in floating] for values in (self.values, moving))
        torch._foreach_lerp_(averages, weights, weight)
        for name in moving.keys() - set(floating):
            self.values[name].copy_(moving[name])

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"updates": self.updates, "values": self.values}

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.updates = state["updates"]
        for name, value in self.values.items():
            value.copy_(split_like(state["values"][name], value))

    @torch.no_grad()
    def swap(self, model: SAM3I) -> None:
        """Exchanges the model's weights with the averaged ones; a second call undoes it, in any mode."""
        own = dict(model.named_parameters()) | dict(model.named_buffers())
        for name, average in self.values.items():
            value = own[name].detach()
            kept = value.clone()
            value.copy_(average)
            average.copy_(kept)


def _moving(model: SAM3I) -> dict[str, Tensor]:
    """Parameters that learn, and buffers of modules in training mode."""
    found: dict[str, Tensor] = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    for prefix, module in model.named_modules():
        if module.training:
            own = module._buffers.items()
            kept = module._non_persistent_buffers_set
            found |= {f"{prefix}.{n}": b for n, b in own if b is not None and n not in kept}
    return found
