"""SAM3-I's instruction adapters.

Each site holds three: `simple` (level simple), `bridge` and `complex` (level complex, in series). The
official code calls them adapter1, adapter12 and adapter2. Source: SAM3-I, arXiv:2512.04585; formulas from the
released code.

Only the last projection of a branch starts at zero. The released initialisation zeroes two factors in series,
whose gradients then vanish together: such an adapter learns nothing but biases.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.kernels.adapter_mlp import adapter_mlp, bottleneck
from sam3i_edge.levels import Level
from sam3i_edge.model.attention import Attention

ADAPTERS = ("simple", "bridge", "complex")

# Rows: concept, simple, complex. y = x + s (g_a f_a(x) + g_b f_b(f_a(x))).
FUSION_GATES = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))  # the complex adapter has an inner skip around the bridge
DECODER_GATES = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))  # here it has none
QUERY_GATES = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))  # of A_simple and A_complex


class Bottleneck(nn.Module):
    """f(z) = Up(GELU(LN(Down(z)))); `GatedAdapter` takes its weights, a folded site calls it."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down_proj = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.up_proj = nn.Linear(hidden, width)
        nn.init.zeros_(self.up_proj.weight)
        nn.init.zeros_(self.up_proj.bias)

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Down weight and bias, norm weight and bias, up weight and bias."""
        down, norm, up = self.down_proj, self.norm, self.up_proj
        return down.weight, down.bias, norm.weight, norm.bias, up.weight, up.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, C] -> the branch alone, [B, N, C]."""
        return bottleneck(x, [value[None] for value in self.tensors()])


class GatedAdapter(nn.Module):
    """One adapter site of the detector, for the level of each sample.

    Args:
        width: channels of the stream.
        hidden: bottleneck.
        scale: s in the formula.
        gates: (g_a, g_b) for concept, simple, complex.
    """

    gates: torch.Tensor

    def __init__(self, width: int, hidden: int, scale: float, gates: tuple[tuple[float, float], ...]) -> None:
        super().__init__()
        self.simple = Bottleneck(width, hidden)
        self.bridge = Bottleneck(width, hidden)
        self.complex = Bottleneck(width, hidden)
        self.register_buffer("gates", torch.tensor(gates) * scale, persistent=False)

    def gathered(self, level: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        """Arguments `first`, `second` and `gates` of `adapter_mlp` for levels int64 [B]."""
        simple, bridge = self.simple.tensors(), self.bridge.tensors()
        # Stacked by level; concept's row is closed by its gates.
        first = [torch.stack((s, s, b)).index_select(0, level) for s, b in zip(simple, bridge, strict=True)]
        return first, list(self.complex.tensors()), self.gates.index_select(0, level)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """[B, N, C], level int64 [B] -> [B, N, C]."""
        return adapter_mlp(x, *self.gathered(level))


class QueryAdapter(nn.Module):
    """Attention between the decoder's queries, for the level of each sample: our addition to SAM3-I's sites.

    y = h + A_level(h). A frozen base that knows concepts finds what is named, and SAM3-I's detector adapters
    see one token at a time: without this nothing that learns compares one object with another.

    Args:
        width: channels of the stream.
        heads: of the attention.
    """

    gates: torch.Tensor

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.simple = Attention(width, heads)
        self.complex = Attention(width, heads)
        for branch in (self.simple, self.complex):
            nn.init.zeros_(branch.o_proj.weight)
            nn.init.zeros_(branch.o_proj.bias)
        self.register_buffer("gates", torch.tensor(QUERY_GATES), persistent=False)

    def forward(self, h: torch.Tensor, query_position: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """[B, 1 + Q, C], the same, int64 [B] -> [B, 1 + Q, C]."""
        q = h + query_position
        simple, complex_ = self.gates.index_select(0, level).unsqueeze(-1).unsqueeze(-1).unbind(1)
        return h + simple * self.simple(q, q, h) + complex_ * self.complex(q, q, h)


class TextAdapter(nn.Module):
    """A text adapter: it carries its own residuals and replaces the skip branch of the block's MLP.

    Its attention has no causal and no padding mask: all 32 slots see all 32.
    """

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.down_proj = nn.Linear(width, hidden)
        self.up_proj = nn.Linear(hidden, width)
        for last in (self.attn.o_proj, self.up_proj):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 32, C] -> [B, 32, C]."""
        h = self.attn_norm(x)
        x = x + self.attn(h, h, h)
        return x + self.up_proj(F.gelu(self.down_proj(self.mlp_norm(x))))


class TextAdapters(nn.Module):
    """The three text adapters of one block."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.simple = TextAdapter(width, hidden, heads)
        self.bridge = TextAdapter(width, hidden, heads)
        self.complex = TextAdapter(width, hidden, heads)

    def forward(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        """[B, 32, C] -> [B, 32, C]; `level` is a constant of the graph."""
        if level == "simple":
            x = self.simple(x)
        elif level == "complex":
            x = self.complex(self.bridge(x))
        return x
