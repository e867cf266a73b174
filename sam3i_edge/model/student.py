"""The image encoder of a student: a small trunk whose map stands in for the ViT's, under SAM3's own pyramid.

Source: EfficientSAM3 (SimonZeng7108/efficientsam3).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.efficientvit import EfficientViT
from sam3i_edge.model.repvit import RepViT
from sam3i_edge.model.tinyvit import TinyViT
from sam3i_edge.model.vit import PyramidLevel

_TRUNKS = {"repvit": RepViT, "tinyvit": TinyViT, "efficientvit": EfficientViT}


class ProjectionHead(nn.Module):
    """The trunk's map in the width and at the grid of the ViT's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.conv1 = nn.Conv2d(config.trunk_widths[-1], config.vit_width, 1)
        self.conv2 = nn.Conv2d(config.vit_width, config.vit_width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, h, h] -> [B, vit_width, grid, grid]; resized last, after both convolutions."""
        x = self.conv2(F.gelu(self.conv1(x)))
        if x.shape[-1] == self.grid:
            return x
        return F.interpolate(x, size=(self.grid, self.grid), mode="bilinear", align_corners=False)


class StudentEncoder(nn.Module):
    """Trunk, head and pyramid."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.backbone = _TRUNKS[config.backbone](config)
        self.head = ProjectionHead(config)
        self.neck = nn.ModuleList(PyramidLevel(config.vit_width, config.d_model, f) for f in (4, 2, 1))

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[B, 3, S, S] -> fpn_4x [B, C, 4g, 4g], fpn_2x [B, C, 2g, 2g], fpn_1x [B, C, g, g]."""
        x = self.head(self.backbone(pixel_values))
        fpn_4x, fpn_2x, fpn_1x = (level(x) for level in self.neck)
        return fpn_4x, fpn_2x, fpn_1x
