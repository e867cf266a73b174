"""SAM3's image encoder: a ViT with windowed and global blocks, and its simple feature pyramid.

Source: ViTDet (Li et al. 2022, arXiv:2203.16527); sizes and details of SAM3 (facebookresearch/sam3).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.attention import Attention, FeedForward
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.position import Rotary, rotary_tables, rotate
from sam3i_edge.model.windows import partition, unpartition

# The official vision tower's epsilon. The transformers port defaults to 1e-6, which costs 1.5e-5 relative.
EPS = 1e-5
_TABLES = ("own", "after", "before")


class RotaryAttention(Attention):
    """Self-attention with rotary positions on queries and keys."""

    def forward(self, x: torch.Tensor, tables: Rotary) -> torch.Tensor:  # type: ignore[override]
        """[B, N, C] with tables [N, C / heads] -> [B, N, C]."""
        q, k, v = (self.split_heads(y) for y in (self.q_proj(x), self.k_proj(x), self.v_proj(x)))
        return self.attend(rotate(q, tables), rotate(k, tables), v)


class ViTBlock(nn.Module):
    """One pre-norm block; `window` is the side of its attention windows, or the whole grid."""

    def __init__(self, config: ModelConfig, window: int) -> None:
        super().__init__()
        self.window, self.grid = window, config.grid
        self.norm1 = nn.LayerNorm(config.vit_width, eps=EPS)
        self.attn = RotaryAttention(config.vit_width, config.vit_heads)
        self.norm2 = nn.LayerNorm(config.vit_width, eps=EPS)
        self.mlp = FeedForward(config.vit_width, config.vit_mlp_dim, gelu=True)

    def forward(self, x: torch.Tensor, tables: Rotary) -> torch.Tensor:
        """[B, grid * grid, C] -> the same."""
        h = self.norm1(x)
        if self.window < self.grid:
            h = partition(h, self.grid, self.window)
            h = unpartition(self.attn(h, tables), self.grid, self.window)
        else:
            h = self.attn(h, tables)
        x = x + h
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Pixels to one map of features at the patch stride."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, table = config.vit_width, config.pretrain_image_size // config.patch_size
        self.patch_embed = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        self.pos_embed = nn.Parameter(torch.randn(1, table * table, width) * 0.02)
        self.norm_pre = nn.LayerNorm(width, eps=EPS)
        self.blocks = nn.ModuleList(
            ViTBlock(config, config.grid if i in config.vit_global_blocks else config.window_size)
            for i in range(config.vit_depth)
        )
        head_dim = width // config.vit_heads
        for name, grid, scale in (
            ("window", config.window_size, 1.0),
            ("global", config.grid, config.window_size / config.grid),
        ):
            for part, values in zip(_TABLES, rotary_tables(grid, head_dim, scale), strict=True):
                self.register_buffer(f"{name}_{part}", values, persistent=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[B, 3, S, S] -> [B, C, grid, grid]."""
        grid, width = self.config.grid, self.config.vit_width
        x = self.patch_embed(pixel_values)
        table = self.config.pretrain_image_size // self.config.patch_size
        position = self.pos_embed.view(table, table, width).permute(2, 0, 1)
        tiles = -(-grid // table)  # the table is tiled, not interpolated
        x = x + position.repeat(1, tiles, tiles)[:, :grid, :grid]
        x = self.norm_pre(x.flatten(2).transpose(1, 2))
        window, whole = (
            tuple(self.get_buffer(f"{name}_{part}") for part in _TABLES) for name in ("window", "global")
        )
        for block in self.blocks:
            x = block(x, whole if block.window == grid else window)
        return x.transpose(1, 2).contiguous().view(-1, width, grid, grid)


class PyramidLevel(nn.Module):
    """Upsamples the ViT's map by 4, 2 or 1 and projects it to the model width."""

    def __init__(self, width: int, d_model: int, factor: int) -> None:
        super().__init__()
        widths = [width // 2**i for i in range({4: 3, 2: 2, 1: 1}[factor])]
        self.deconv = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.conv1 = nn.Conv2d(widths[-1], d_model, 1)
        self.conv2 = nn.Conv2d(d_model, d_model, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, g, g] -> [B, d_model, factor * g, factor * g]."""
        for i, deconv in enumerate(self.deconv):
            x = deconv(F.gelu(x) if i else x)
        return self.conv2(self.conv1(x))


class ViTEncoder(nn.Module):
    """ViT and pyramid, without the official fourth, coarsest level, which is thrown away there."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.backbone = ViT(config)
        self.neck = nn.ModuleList(PyramidLevel(config.vit_width, config.d_model, f) for f in (4, 2, 1))

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[B, 3, S, S] -> fpn_4x [B, C, 4g, 4g], fpn_2x [B, C, 2g, 2g], fpn_1x [B, C, g, g]."""
        x = self.backbone(pixel_values)
        fpn_4x, fpn_2x, fpn_1x = (level(x) for level in self.neck)
        return fpn_4x, fpn_2x, fpn_1x
