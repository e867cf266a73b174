"""The fusion encoder: image tokens read the prompt; SAM3-I's adapters sit on the feed-forward's skip."""

from __future__ import annotations

import torch
from torch import nn

from sam3i_edge.kernels.adapter_cross_attention import adapter_cross_attention
from sam3i_edge.model.adapters import FUSION_GATES, GatedAdapter
from sam3i_edge.model.attention import Attention, FeedForward
from sam3i_edge.model.config import ModelConfig


class FusionLayer(nn.Module):
    """Pre-norm: self-attention, attention to the prompt, y = E(x) + FFN(LN3(x)), E the adapters."""

    adapter: GatedAdapter | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, heads = config.d_model, config.n_heads
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attn = Attention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, config.ffn_dim, gelu=False)
        self.adapter = (
            GatedAdapter(width, config.adapter_dim, config.adapter_scale, FUSION_GATES)
            if config.adapter_dim
            else None
        )

    def forward(
        self,
        x: torch.Tensor,
        position: torch.Tensor,
        prompt: torch.Tensor,
        prompt_bias: torch.Tensor,
        level: torch.Tensor | None,
    ) -> torch.Tensor:
        """Image [B, N, C], position [N, C], prompt [B, T, C], bias [B, 1, 1, T] -> [B, N, C]."""
        h = self.norm1(x)
        x = x + self.self_attn(h + position, h + position, h)
        x, skip = self._read_prompt(x, prompt, prompt_bias, level)
        return skip + self.mlp(self.norm3(x))

    def _read_prompt(
        self, x: torch.Tensor, prompt: torch.Tensor, prompt_bias: torch.Tensor, level: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention to the prompt and the adapters: the residual stream, and the skip with E on it."""
        adapter = None if level is None else self.adapter
        attention = self.cross_attn
        projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        if not all(_is_plain(part) for part in (self.norm2, attention, *projections)):
            x = x + attention(self.norm2(x), prompt, prompt, prompt_bias)
            return x, x if adapter is None or level is None else adapter(x, level)
        norm, q, k, v, o = ((part.weight, part.bias) for part in (self.norm2, *projections))
        # A folded site has adapters that the operator does not know.
        if level is not None and type(adapter) is GatedAdapter:
            inside = adapter.gathered(level)
            return adapter_cross_attention(x, prompt, prompt_bias, norm, q, k, v, o, attention.heads, inside)
        x, _ = adapter_cross_attention(x, prompt, prompt_bias, norm, q, k, v, o, attention.heads)
        return x, x if adapter is None or level is None else adapter(x, level)


def _is_plain(part: nn.Module) -> bool:
    """Whether `part` is nothing but its parameters: not quantized, not observed by a hook."""
    return type(part) in (nn.LayerNorm, nn.Linear, Attention) and not (
        part._forward_hooks or part._forward_pre_hooks
    )


class FusionEncoder(nn.Module):
    """The layers, one after the other. The prompt itself is not updated."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FusionLayer(config) for _ in range(config.encoder_layers))

    def forward(
        self,
        x: torch.Tensor,
        position: torch.Tensor,
        prompt: torch.Tensor,
        prompt_bias: torch.Tensor,
        level: torch.Tensor | None,
    ) -> torch.Tensor:
        """As `FusionLayer`."""
        for layer in self.layers:
            x = layer(x, position, prompt, prompt_bias, level)
        return x
