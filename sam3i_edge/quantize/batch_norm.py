"""Batch norms folded into the convolutions before them, which then have a bias and can be quantized."""

from __future__ import annotations

import copy

import torch
from torch import nn

from sam3i_edge.model.convnet import ConvNorm


@torch.no_grad()
def fold_batch_norms(model: nn.Module) -> None:
    """Replaces each convolution and batch norm by one convolution with the same result in eval mode.

    W' = W g / sqrt(v + eps), b' = b - m g / sqrt(v + eps). Source: Jacob et al. 2018 (arXiv:1712.05877), 3.2.
    """
    for pair, conv, norm in _pairs(model):
        if norm.running_mean is None or norm.running_var is None:
            raise TypeError("a batch norm without running statistics cannot be folded")
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        folded = _with_bias(conv)
        folded.weight = nn.Parameter(conv.weight * factor[:, None, None, None])
        folded.bias = nn.Parameter(norm.bias - norm.running_mean * factor)
        pair[0], pair[1] = folded, nn.Identity()


def drop_batch_norms(model: nn.Module) -> None:
    """Gives a model the modules that `fold_batch_norms` leaves, with parameters on the meta device."""
    for pair, conv, _ in _pairs(model):
        pair[0], pair[1] = _with_bias(conv), nn.Identity()


def _pairs(model: nn.Module) -> list[tuple[ConvNorm, nn.Conv2d, nn.BatchNorm2d]]:
    found = []
    for module in model.modules():
        if isinstance(module, ConvNorm):
            conv, norm = module
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                found.append((module, conv, norm))
    return found


def _with_bias(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with a bias; parameters on the meta device."""
    folded = copy.deepcopy(conv).to("meta")
    folded.bias = nn.Parameter(torch.empty(conv.out_channels, device="meta"))
    return folded
