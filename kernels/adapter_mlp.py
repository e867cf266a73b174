"""The instruction adapter of one site: y = x + g_a f_a(x) + g_b f_b(f_a(x)), f(z) = Up(GELU(LN(Down(z)))).

Source: SAM3-I (arXiv:2512.04585), the released code's fusion and decoder adapters in one closed form. With
gates (0, 0) it is the identity, (1, 0) the simple path, (1, 1) the fusion encoder's and (0, 1) the decoder's
complex path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def adapter_mlp(
    x: torch.Tensor, first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], gates: torch.Tensor
) -> torch.Tensor:
    """Adds the gated adapter chain to the stream.

    Args:
        x: [B, N, C], floating point.
        first: weights of f_a for each sample: down [B, R, C], [B, R]; norm [B, R], [B, R]; up [B, C, R], [B,
            C].
        second: weights of f_b, shared by all samples: down [R, C], [R]; norm [R], [R]; up [C, R], [C].
        gates: [B, 2], g_a and g_b of each sample, already times the adapter scale.

    Returns:
        [B, N, C] in the dtype of `x`.

    Raises:
        ValueError: the shapes disagree.
    """
    if (
        first[0].shape[:1] != x.shape[:1]
        or first[0].shape[-1:] != x.shape[-1:]
        or gates.shape != (x.shape[0], 2)
    ):
        raise ValueError(
            f"adapter_mlp: x {tuple(x.shape)}, down {tuple(first[0].shape)}, gates {tuple(gates.shape)}; "
            "want [B, N, C], [B, R, C], [B, 2]"
        )
    return adapter_mlp_reference(x, first, second, gates)


def adapter_mlp_reference(
    x: torch.Tensor, first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], gates: torch.Tensor
) -> torch.Tensor:
    """The definition. Exporters trace it and tests compare against it."""
    a = bottleneck(x, first)
    down, down_bias, norm, norm_bias, up, up_bias = second
    h = F.gelu(F.layer_norm(F.linear(a, down, down_bias), down.shape[:1], norm, norm_bias))
    b = F.linear(h, up, up_bias)
    return x + gates[:, 0, None, None] * a + gates[:, 1, None, None] * b


def bottleneck(x: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """f(x) = Up(GELU(LN(Down(x)))) with weights of each sample's own: [B, N, C] -> [B, N, C].

    Args:
        x: [B, N, C].
        weights: as `first` of `adapter_mlp`.
    """
    down, down_bias, norm, norm_bias, up, up_bias = weights
    h = torch.matmul(x, down.transpose(1, 2)) + down_bias[:, None]  # [B, N, R]
    h = F.layer_norm(h, h.shape[-1:]) * norm[:, None] + norm_bias[:, None]
    return torch.matmul(F.gelu(h), up.transpose(1, 2)) + up_bias[:, None]
