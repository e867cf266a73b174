"""RepViT's trunk in its folded form: one depthwise and two pointwise convolutions a block.

Source: RepViT (Wang et al. 2024, arXiv:2307.09283), the variants that EfficientSAM3 trained. The branches and
batch norms of a checkpoint become one convolution when it is converted; see `checkpoints.student_folds`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.config import ModelConfig


def squeezed(channels: int) -> int:
    """Channels between the two layers of a squeeze: a quarter, to the nearest 8, half up, at least 8."""
    return max(8, (channels // 4 + 4) // 8 * 8)


class SqueezeExcite(nn.Module):
    """Scales each channel by what the means of all channels say of it (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed(channels), 1)
        self.fc2 = nn.Conv2d(squeezed(channels), channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> the same."""
        return x * self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class RepViTBlock(nn.Module):
    """Mixes pixels, then channels. Only the second part has a skip: that of the first lies in its weights.

    Args:
        channels_in: of the input.
        channels_out: of the output; with stride 1 the same.
        stride: 1 or 2.
        squeeze: scale channels between the two parts.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int = 1, *, squeeze: bool = False
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels_in, channels_in, 3, stride=stride, padding=1, groups=channels_in)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1) if stride == 2 else nn.Identity()
        self.squeeze = SqueezeExcite(channels_in) if squeeze else nn.Identity()
        self.expand = nn.Conv2d(channels_out, 2 * channels_out, 1)
        self.project = nn.Conv2d(2 * channels_out, channels_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C', ceil(H / stride), ceil(W / stride)]."""
        x = self.pointwise(self.squeeze(self.depthwise(x)))
        return x + self.project(F.gelu(self.expand(x)))


class RepViT(nn.Module):
    """Pixels to one map at stride 32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.trunk_widths[0]
        stem = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        )
        steps: list[tuple[int, int, int]] = []
        for channels, depth in zip(config.trunk_widths, config.trunk_depths, strict=True):
            if steps:
                steps.append((width, channels, 2))
            steps += [(channels, channels, 1)] * depth
            width = channels
        blocks = (
            RepViTBlock(*step, squeeze=number in config.trunk_squeezes)
            for number, step in enumerate(steps, 1)
        )
        self.features = nn.ModuleList((stem, *blocks))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[B, 3, S, S] -> [B, C, ceil(S / 32), ceil(S / 32)]."""
        x = pixel_values
        for part in self.features:
            x = part(x)
        return x
