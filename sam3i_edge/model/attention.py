"""Multi-head attention and the small MLPs that every part of SAM3 shares."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

# Added to the logits of masked positions. exp(-1e4) is 0 in float32 and the value still fits float16, which
# -1e9 does not; an all-masked row stays finite.
MASKED = -1e4

# An exported graph holds the logits of its attention, PyTorch's own attention does not. So an export takes
# queries in pieces of at most so many logits, 48 MB: those of 5,184 tokens with 16 heads would take 1.7 GB.
LOGITS = 12_000_000


class Attention(nn.Module):
    """Multi-head attention with separate query, key, value and output projections (all with bias).

    Args:
        width: channels of queries and output.
        heads: number of heads; divides `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, C] -> [B, heads, N, C / heads]."""
        batch, tokens, width = x.shape
        return x.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)

    def attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Softmax attention of projected, split heads, merged and projected out.

        Args:
            q: [B, heads, N, d].
            k: [B, heads, M, d].
            v: [B, heads, M, d].
            bias: added to the logits; broadcasts to [B, heads, N, M].

        Returns:
            [B, N, C].
        """
        rows = LOGITS // (q.shape[0] * self.heads * k.shape[2])
        # Not `is_exporting()`: torch 2.11 says it is true under torch.compile too.
        if torch.compiler._is_exporting_flag and q.shape[2] > rows and (bias is None or bias.shape[2] == 1):
            pieces = torch.split(q, max(rows, 1), dim=2)
            out = torch.cat([F.scaled_dot_product_attention(p, k, v, attn_mask=bias) for p in pieces], dim=2)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.merge(out)

    def project(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[B, N, C], [B, M, C], [B, M, C] -> [B, heads, N, d], [B, heads, M, d], [B, heads, M, d]."""
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        return self.split_heads(q), self.split_heads(k), self.split_heads(v)

    def merge(self, out: torch.Tensor) -> torch.Tensor:
        """Projects what the heads attended to: [B, heads, N, d] -> [B, N, C]."""
        # A clone, because the exporter drops `contiguous()` where SDPA's eager strides make it a no-op, and
        # its own decomposition of SDPA has other strides: the view then fails (torch 2.13).
        out = out.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        return self.o_proj(out.view(out.shape[0], out.shape[1], -1))

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[B, N, C], [B, M, C], [B, M, C] -> [B, N, C]; `bias` as in `attend`."""
        return self.attend(*self.project(query, key, value), bias)


def padding_bias(mask: torch.Tensor) -> torch.Tensor:
    """Turns a mask of real tokens [B, M] bool into an additive attention bias [B, 1, 1, M] float32."""
    bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, MASKED)
    return bias[:, None, None, :]


class FeedForward(nn.Module):
    """Linear, activation, linear.

    Args:
        width: input and output channels.
        hidden: channels between.
        gelu: exact GELU (ViT and text encoder) or ReLU (everything after).
    """

    def __init__(self, width: int, hidden: int, *, gelu: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.gelu = gelu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., width] -> [..., width]."""
        x = self.fc1(x)
        return self.fc2(F.gelu(x) if self.gelu else F.relu(x))


class MLP(nn.Module):
    """Linear layers with ReLU between: the official code's head MLP.

    Args:
        widths: channels before the first, between, and after the last layer.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def linears(self) -> list[nn.Linear]:
        """The layers in order, by their type."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., widths[0]] -> [..., widths[-1]]."""
        for i, layer in enumerate(self.layers):
            x = F.relu(layer(x)) if i + 1 < len(self.layers) else layer(x)
        return x
