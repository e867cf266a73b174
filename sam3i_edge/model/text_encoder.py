"""SAM3's text encoder (a causal CLIP, every token kept) with SAM3-I's adapters; and students of it.

Source: CLIP (Radford et al. 2021, arXiv:2103.00020); adapters of SAM3-I (arXiv:2512.04585); students of
EfficientSAM3 and SAM3-LiteText, which are MobileCLIP's (arXiv:2311.17049) and not causal.
"""

from __future__ import annotations

import torch
from torch import nn

from sam3i_edge.levels import Level
from sam3i_edge.model.adapters import TextAdapters
from sam3i_edge.model.attention import MASKED, Attention, FeedForward
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.repmixer import RepMixerBlock


class TextBlock(nn.Module):
    """Pre-norm block: y = R(x) + MLP(LN2(x)), R the level's adapters on the skip branch."""

    adapter: TextAdapters | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text_width
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, config.text_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, config.text_mlp_dim, gelu=True)
        self.adapter = (
            TextAdapters(width, config.adapter_dim, config.adapter_heads) if config.adapter_dim else None
        )

    def forward(self, x: torch.Tensor, causal: torch.Tensor | None, level: Level) -> torch.Tensor:
        """[B, T, C] -> [B, T, C]."""
        h = self.norm1(x)
        x = x + self.attn(h, h, h, causal)
        skip = x if self.adapter is None else self.adapter(x, level)
        return skip + self.mlp(self.norm2(x))


class TextEncoder(nn.Module):
    """Token ids to features of the model width.

    There is no padding mask inside: padding slots hold id 0 and take part, as in training of the official
    model.
    """

    causal: torch.Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, context = config.text_width, config.text_context
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Parameter(torch.randn(context, width) * 0.1)
        self.layers = nn.ModuleList(
            (RepMixerBlock if number in config.text_mixers else TextBlock)(config)
            for number in range(config.text_layers)
        )
        self.final_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, config.d_model)
        # CLIP's 0.02 drowns in the blocks' biases: all instructions then look alike, and a small model never
        # learns to tell them apart.
        nn.init.normal_(self.token_embedding.weight, std=0.5)
        causal = torch.full((context, context), MASKED).triu(1) if config.text_causal else None
        self.register_buffer("causal", causal, persistent=False)

    def forward(self, input_ids: torch.Tensor, level: Level) -> torch.Tensor:
        """Token ids to features.

        Args:
            input_ids: int64 [B, T]; T is the context, or fewer at level concept of a causal model only, where
                dropping trailing padding slots changes no real token.
            level: a constant of the graph.

        Returns:
            [B, T, d_model].
        """
        tokens = input_ids.shape[1]
        x = self.token_embedding(input_ids) + self.position_embedding[:tokens]
        causal = None if self.causal is None else self.causal[:tokens, :tokens]
        for layer in self.layers:
            x = layer(x, causal, level)
        return self.projection(self.final_norm(x))
