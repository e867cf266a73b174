"""The convolutional block of MobileCLIP's S0 text encoder in its folded form.

Source: MobileCLIP (Vasu et al. 2024, arXiv:2311.17049). The token mixer's branches, its skip and both layer
scales become single layers when a checkpoint is converted; see `checkpoints.student_folds`.
"""

from __future__ import annotations

import torch
from torch import nn

from sam3i_edge.levels import Level
from sam3i_edge.model.adapters import TextAdapters
from sam3i_edge.model.attention import FeedForward
from sam3i_edge.model.config import ModelConfig

KERNEL = 11  # token slots


class RepMixerBlock(nn.Module):
    """Mixes tokens by a depthwise convolution, then y = R(x) + MLP(conv(x)), R the level's adapters."""

    adapter: TextAdapters | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text_width
        self.mixer, self.conv = (
            nn.Conv2d(width, width, (1, KERNEL), padding=(0, KERNEL // 2), groups=width) for _ in range(2)
        )
        self.mlp = FeedForward(width, config.text_mlp_dim, gelu=True)
        self.adapter = (
            TextAdapters(width, config.adapter_dim, config.adapter_heads) if config.adapter_dim else None
        )

    def forward(self, x: torch.Tensor, causal: torch.Tensor | None, level: Level) -> torch.Tensor:
        """[B, T, C] -> [B, T, C]; `causal` is for its neighbours."""
        del causal
        mixed = self.mixer(x.transpose(1, 2)[:, :, None])  # [B, C, 1, T]
        gathered = self.conv(mixed)[:, :, 0].transpose(1, 2)
        x = mixed[:, :, 0].transpose(1, 2)
        skip = x if self.adapter is None else self.adapter(x, level)
        return skip + self.mlp(gathered)
