"""SAM3's text encoder: CLIP's causal transformer, every token kept, with SAM3-I's adapters.

Source: CLIP (Radford et al. 2021, arXiv:2103.00020); adapters of SAM3-I (arXiv:2512.04585).
"""

from __future__ import annotations

import torch
from torch import nn

from sam3i_edge.levels import Level
from sam3i_edge.model.adapters import TextAdapters
from sam3i_edge.model.attention import MASKED, Attention, FeedForward
from sam3i_edge.model.config import ModelConfig


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

    def forward(self, x: torch.Tensor, causal: torch.Tensor, level: Level) -> torch.Tensor:
        """[B, 32, C] -> [B, 32, C]."""
        h = self.norm1(x)
        x = x + self.attn(h, h, h, causal)
        skip = x if self.adapter is None else self.adapter(x, level)
        return skip + self.mlp(self.norm2(x))


class TextEncoder(nn.Module):
    """Token ids to features of the model width.

    There is no padding mask inside: padding slots hold id 0 and take part, as in training of the official
    model.
    """

    causal: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, context = config.text_width, config.text_context
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Parameter(torch.randn(context, width) * 0.1)
        self.layers = nn.ModuleList(TextBlock(config) for _ in range(config.text_layers))
        self.final_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, config.d_model)
        # CLIP's 0.02 drowns in the blocks' biases: all instructions then look alike, and a small model never
        # learns to tell them apart.
        nn.init.normal_(self.token_embedding.weight, std=0.5)
        self.register_buffer("causal", torch.full((context, context), MASKED).triu(1), persistent=False)

    def forward(self, input_ids: torch.Tensor, level: Level) -> torch.Tensor:
        """Token ids to features.

        Args:
            input_ids: int64 [B, T]; T = 32, or fewer at level concept only, where attention is causal and
                dropping trailing padding slots changes no real token.
            level: a constant of the graph.

        Returns:
            [B, T, d_model].
        """
        tokens = input_ids.shape[1]
        x = self.token_embedding(input_ids) + self.position_embedding[:tokens]
        causal = self.causal[:tokens, :tokens]
        for layer in self.layers:
            x = layer(x, causal, level)
        return self.projection(self.final_norm(x))
