"""The small image encoder of the nano size: a residual network with a feature pyramid.

It stands where EfficientSAM3's students stand: everything after it is SAM3's own. Unlike the ViT's pyramid,
which grows all levels from one map, each level here starts from the stage of its own stride, which keeps
edges sharp at 160 px. Sources: ResNet (He et al. 2015, arXiv:1512.03385) for the blocks, FPN (Lin et al.
2016, arXiv:1612.03144) for the pyramid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.config import ModelConfig


class ConvNorm(nn.Sequential):
    """Convolution, 3 x 3 where nothing else is said, and batch norm."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int = 1,
        *,
        kernel: int = 3,
        groups: int = 1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels_out, eps=eps),
        )


def top_down(maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Adds to each map [B, C, H, W], finest first, what the next coarser one became."""
    merged = [maps[-1]]
    for finer in reversed(maps[:-1]):
        merged.append(finer + F.interpolate(merged[-1], scale_factor=2.0, mode="nearest"))
    return merged[::-1]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels)
        self.conv2 = ConvNorm(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> the same."""
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class Stage(nn.Module):
    """Halves the resolution, then residual blocks."""

    def __init__(self, channels_in: int, channels_out: int, depth: int) -> None:
        super().__init__()
        self.down = ConvNorm(channels_in, channels_out, stride=2)
        self.blocks = nn.Sequential(*(ResidualBlock(channels_out) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C', H / 2, W / 2]."""
        return self.blocks(F.relu(self.down(x)))


class ConvEncoder(nn.Module):
    """Residual stages at strides 2 to 16 and a top-down pyramid of strides 4, 8 and 16."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        stem, *widths = config.conv_widths
        self.stem = ConvNorm(3, stem, stride=2)
        self.stages = nn.ModuleList(
            Stage(a, b, config.conv_depth) for a, b in zip((stem, *widths), widths, strict=False)
        )
        self.neck = nn.ModuleList(nn.Conv2d(width, config.d_model, 1) for width in widths)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[B, 3, S, S] -> fpn_4x [B, C, S/4, S/4], fpn_2x [B, C, S/8, S/8], fpn_1x [B, C, S/16, S/16]."""
        x = F.relu(self.stem(pixel_values))
        maps = []
        for stage, lateral in zip(self.stages, self.neck, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        fpn_4x, fpn_2x, fpn_1x = top_down(maps)
        return fpn_4x, fpn_2x, fpn_1x
