"""EfficientNet-Lite's trunk under the pyramid of `convnet`: what it learned of photographs is a start.

Sources: EfficientNet (Tan and Le 2019, arXiv:1905.11946), its Lite form (no squeeze, ReLU6) for integers; FPN
(Lin et al. 2016, arXiv:1612.03144). Padding is the same on both sides, where TensorFlow pads after the map:
the maps are shifted by less than a cell, which training takes up.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.convnet import ConvNorm, top_down

# Of each stage after the stem: kernel, stride, expansion.
STAGES: Final = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6))
TAPS: Final = (0, 1, 2, 4, 5)  # the last stages of strides 2, 4, 8, 16 and 32
_EPS: Final = 1e-3
_DETAIL_GROUPS: Final = 4  # a quarter of the weights; the pixel decoder mixes what they keep apart


class InvertedResidual(nn.Module):
    """Widens, mixes pixels, narrows; a skip where the shape stays."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * channels_in
        self.expand = ConvNorm(channels_in, hidden, kernel=1, eps=_EPS) if expansion > 1 else None
        self.depthwise = ConvNorm(hidden, hidden, stride, kernel=kernel, groups=hidden, eps=_EPS)
        self.project = ConvNorm(hidden, channels_out, kernel=1, eps=_EPS)
        self.skips = stride == 1 and channels_in == channels_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.depthwise(h)))
        return x + h if self.skips else h


class EfficientNetEncoder(nn.Module):
    """Stem and stages at strides 2 to 32, and a top-down pyramid of strides 4, 8 and 16."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        stem, *widths = config.trunk_widths
        self.stem = ConvNorm(3, stem, stride=2, eps=_EPS)
        stages, width = [], stem
        for channels, depth, (kernel, stride, expansion) in zip(
            widths, config.trunk_depths, STAGES, strict=True
        ):
            blocks = [InvertedResidual(width, channels, kernel, stride, expansion)]
            blocks += [InvertedResidual(channels, channels, kernel, 1, expansion) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
            width = channels
        self.stages = nn.ModuleList(stages)
        self.neck = nn.ModuleList(nn.Conv2d(widths[stage], config.d_model, 1) for stage in TAPS[1:])
        self.detail = None
        if config.mask_detail:  # what the map of stride 2 knows joins that of stride 4; at first nothing
            self.detail = nn.Conv2d(widths[0], config.d_model, 2, 2, groups=_DETAIL_GROUPS, bias=False)
            nn.init.zeros_(self.detail.weight)

    def features(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """[B, 3, S, S] -> the trunk's last maps of strides 2, 4, 8, 16 and 32, before the pyramid."""
        x = F.relu6(self.stem(pixel_values))
        maps = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in TAPS:
                maps.append(x)
        return maps

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[B, 3, S, S] -> fpn_4x [B, C, S/4, S/4], fpn_2x [B, C, S/8, S/8], fpn_1x [B, C, S/16, S/16]."""
        fine, *features = self.features(pixel_values)
        maps = [lateral(x) for lateral, x in zip(self.neck, features, strict=True)]
        if self.detail is not None:
            maps[0] = maps[0] + self.detail(fine)
        fpn_4x, fpn_2x, fpn_1x, _ = top_down(maps)
        return fpn_4x, fpn_2x, fpn_1x
