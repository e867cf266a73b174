"""Batch norms that a trunk trains with when it starts from nothing; written weights have them folded.

The modules of `sam3i_edge.model` are the folded form that is exported, and a deep trunk of that form learns
next to nothing. Source: batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167); the fold is that of
Jacob et al. 2018 (arXiv:1712.05877), 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from sam3i_edge.model.repvit import RepViTBlock, SqueezeExcite
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.student import StudentEncoder

_EPS: Final = 1e-5
_NORM: Final = ".batch_norm.weight"


class NormedConv(nn.Conv2d):
    """A convolution and its batch norm; both are made of a convolution with a bias."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            groups=conv.groups,
        )
        self.load_state_dict(conv.state_dict())
        self.batch_norm = nn.BatchNorm2d(conv.out_channels, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        y: Tensor = self.batch_norm(super().forward(x))
        return y


def add_norms(model: SAM3I) -> None:
    """Gives every convolution of a student's trunk and head a batch norm, but those that see one value a map.

    Depthwise convolutions without a skip, RepViT's, start as the identity and a little more.
    """
    encoder = model.image_encoder
    if not isinstance(encoder, StudentEncoder):
        return
    for parent in [*encoder.backbone.modules(), *encoder.head.modules()]:
        if isinstance(parent, SqueezeExcite):
            continue
        for name, conv in list(parent.named_children()):
            if isinstance(conv, nn.Conv2d) and conv.bias is not None:
                normed = NormedConv(conv)
                if isinstance(parent, RepViTBlock) and name == "depthwise":
                    with torch.no_grad():
                        normed.weight[:, 0, 1, 1] += 1
                setattr(parent, name, normed)


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with each batch norm of `add_norms` in the weight and bias of its convolution, exactly."""
    kept = dict(state)
    for place in [name.removesuffix(_NORM) for name in state if name.endswith(_NORM)]:
        weight, bias, mean, variance = (
            kept.pop(f"{place}.batch_norm.{part}").double()
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        kept.pop(f"{place}.batch_norm.num_batches_tracked")
        scale = weight / (variance + _EPS).sqrt()
        kept[f"{place}.weight"] = (kept[f"{place}.weight"].double() * scale[:, None, None, None]).float()
        kept[f"{place}.bias"] = (bias + (kept[f"{place}.bias"].double() - mean) * scale).float()
    return kept
