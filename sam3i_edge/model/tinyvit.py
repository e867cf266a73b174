"""TinyViT's trunk: convolutions at stride 4, then window attention with a table of biases by offset.

Source: TinyViT (Wu et al. 2022, arXiv:2207.10666), the variants that EfficientSAM3 trained. Batch norms are
folded and biases gathered when a checkpoint is converted; see `checkpoints.student_folds`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.attention import Attention, FeedForward
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.windows import partition, unpartition


class MBConv(nn.Module):
    """Inverted bottleneck; the last activation comes after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 4 * channels
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.conv3 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> the same."""
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Downsample(nn.Module):
    """Halves the map, sides rounded up."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, stride=2, padding=1, groups=channels_out)
        self.conv3 = nn.Conv2d(channels_out, channels_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C', ceil(H / 2), ceil(W / 2)]."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowAttention(Attention):
    """Self-attention with a bias for each pair of places in a window."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__(width, heads)
        self.bias = nn.Parameter(torch.zeros(heads, window * window, window * window))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """[B, w * w, C] -> the same."""
        return self.attend(*self.project(x, x, x), self.bias[None])


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise convolution, a feed-forward part.

    Args:
        width: channels.
        heads: of the attention.
        window: side of a window.
        grid: side of the map. What windows do not tile is padded with zeros before the norm, and attended to.
    """

    def __init__(self, width: int, heads: int, window: int, grid: int) -> None:
        super().__init__()
        self.window, self.grid = window, grid
        self.padded = -(-grid // window) * window
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = nn.Conv2d(width, width, 3, padding=1, groups=width)  # neither skip nor activation
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, 4 * width, gelu=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, grid, grid] -> the same."""
        grid, padded = self.grid, self.padded
        h = F.pad(x, (0, padded - grid, 0, padded - grid)) if padded > grid else x
        h = self.norm1(h.flatten(2).transpose(1, 2))
        h = unpartition(self.attn(partition(h, padded, self.window)), padded, self.window)
        h = h.transpose(1, 2).contiguous().view(-1, x.shape[1], padded, padded)[:, :, :grid, :grid]
        x = self.local_conv(x + h).flatten(2).transpose(1, 2)
        x = x + self.mlp(self.norm2(x))
        return x.transpose(1, 2).contiguous().view(-1, x.shape[2], grid, grid)


class Layer(nn.Module):
    """Blocks at one stride, then what halves the map, if anything."""

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        return self.downsample(self.blocks(x))


class TinyViT(nn.Module):
    """Pixels to one map at stride 32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths, depths = config.trunk_widths, config.trunk_depths
        first = widths[0]
        self.patch_embed = nn.Sequential(
            nn.Conv2d(3, first // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(first // 2, first, 3, stride=2, padding=1),
        )
        steps = [Downsample(a, b) for a, b in pairwise(widths)]
        layers = [Layer((MBConv(first) for _ in range(depths[0])), steps[0])]
        grid = -(-config.image_size // 4)
        attending = zip(
            widths[1:], depths[1:], config.trunk_heads, config.trunk_windows, (*steps[1:], nn.Identity()),
            strict=True,
        )  # fmt: skip
        for width, depth, heads, window, step in attending:
            grid = -(-grid // 2)
            layers.append(Layer((TinyViTBlock(width, heads, window, grid) for _ in range(depth)), step))
        self.layers = nn.ModuleList(layers)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[B, 3, S, S] -> [B, C, ceil(S / 32), ceil(S / 32)]."""
        x = self.patch_embed(pixel_values)
        for layer in self.layers:
            x = layer(x)
        return x
