"""EfficientViT's trunk (B series): inverted bottlenecks, and attention that is linear in the pixels.

Source: EfficientViT (Cai et al. 2023, arXiv:2205.14756), the variants that EfficientSAM3 trained. Batch norms
are folded when a checkpoint is converted; see `checkpoints.student_folds`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.config import ModelConfig


class DSConv(nn.Module):
    """Depthwise and pointwise convolution round a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.point = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> the same."""
        return x + self.point(F.hardswish(self.depth(x)))


class MBConv(nn.Module):
    """Inverted bottleneck; round it a skip where it keeps the map's size."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        hidden = 4 * channels_in
        self.skip = stride == 1
        self.inverted = nn.Conv2d(channels_in, hidden, 1)
        self.depth = nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden)
        self.point = nn.Conv2d(hidden, channels_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C', ceil(H / stride), ceil(W / stride)]."""
        y = self.point(F.hardswish(self.depth(F.hardswish(self.inverted(x)))))
        return x + y if self.skip else y


class LinearAttention(nn.Module):
    """o_n = (sum_m v_m k_m^T) q_n / ((sum_m k_m) q_n) with q, k >= 0, in groups of channels.

    The sums run over thousands of pixels and want float32. Where a runtime makes float16 of everything, keys
    and values that are smaller by a power of two keep them in range; in float32 that changes no bit. A group
    whose queries are all 0 gives 0: the released code adds 1e-15 below, which float16 does not hold.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, groups * 3 group, H, W], each [q | k | v], -> [B, groups * group, H, W]."""
        batch, channels, height, width = x.shape
        parts = x.view(batch, channels // (3 * self.group), 3 * self.group, height * width)
        q, k, v = torch.split(parts, self.group, dim=2)  # [B, groups, d, N]
        small = 2.0 ** -((height * width - 1).bit_length() // 2)
        q, k, v = F.relu(q), F.relu(k) * small, v * small
        total = torch.matmul(v, k.transpose(2, 3).contiguous())  # [B, groups, d, d]
        share = torch.matmul(k.sum(3)[:, :, None], q)  # [B, groups, 1, N]
        out = torch.matmul(total, q) / (share + (share <= 0).to(share.dtype))
        return (out / small).view(batch, channels // 3, height, width)


class LiteMLA(nn.Module):
    """Linear attention of the pixels and of their 5 x 5 neighbourhoods, round a skip."""

    def __init__(self, channels: int, group: int) -> None:
        super().__init__()
        wide = 3 * channels
        self.qkv = nn.Conv2d(channels, wide, 1, bias=False)
        self.gather = nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False)
        self.mix = nn.Conv2d(wide, wide, 1, groups=wide // group, bias=False)
        self.attention = LinearAttention(group)
        self.proj = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> the same."""
        z = self.qkv(x)
        return x + self.proj(self.attention(torch.cat((z, self.mix(self.gather(z))), dim=1)))


class AttentionBlock(nn.Module):
    """Attention, then an inverted bottleneck."""

    def __init__(self, channels: int, group: int) -> None:
        super().__init__()
        self.context = LiteMLA(channels, group)
        self.local = MBConv(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> the same."""
        return self.local(self.context(x))


class EfficientViT(nn.Module):
    """Pixels to one map at stride 32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        first, *widths = config.trunk_widths
        depth, *depths = config.trunk_depths
        halving = nn.Conv2d(3, first, 3, stride=2, padding=1)
        self.stem = nn.ModuleList((halving, *(DSConv(first) for _ in range(depth))))
        stages = []
        before = first
        for number, (width, count) in enumerate(zip(widths, depths, strict=True)):
            blocks: list[nn.Module] = [MBConv(before, width, stride=2)]
            if number < 2:  # the depth counts all blocks of the first two, and pairs of the last two
                blocks += [MBConv(width, width) for _ in range(count - 1)]
            else:
                blocks += [AttentionBlock(width, config.trunk_group) for _ in range(count)]
            stages.append(nn.Sequential(*blocks))
            before = width
        self.stages = nn.ModuleList(stages)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[B, 3, S, S] -> [B, C, ceil(S / 32), ceil(S / 32)]."""
        halving, *blocks = self.stem
        x = F.hardswish(halving(pixel_values))
        for part in (*blocks, *self.stages):
            x = part(x)
        return x
