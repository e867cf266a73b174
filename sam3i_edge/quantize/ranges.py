"""Scales: the ranges of weights and activations that lose least, in a form that every target stores exactly.

Every scale is exact in float16 and at least 2^-14 (Core ML rounds scales to float16): it is rounded up before
integers are computed.
"""

from __future__ import annotations

import torch

SMALLEST = 2.0**-14  # the least normal float16
_CACHED = 1 << 16  # values
_RATIOS = torch.linspace(1.0, 0.35, 40)
_BLOCK, _AT_ONCE = 128, 1 << 20  # columns; values that stay in a core's cache whole
_DAMPING = 1e-2  # of the inputs' mean square: what never varies can be inverted
_BIAS_BOUND = 2.0**29  # steps of s_x s_w: half of what a spec may hold, so that correcting the bias is safe


def exact_scale(scale: torch.Tensor) -> torch.Tensor:
    """The least float16 that is not below `scale`, and at least 2^-14, as float32.

    Raises:
        ValueError: a scale is not finite or above float16's largest value, 65504.
    """
    if not bool(torch.isfinite(scale).all()) or bool((scale > 65504).any()):
        raise ValueError(f"scales must be finite and at most 65504, the largest is {float(scale.max()):g}")
    half = scale.clamp(min=SMALLEST).to(torch.float16)
    above = torch.nextafter(half, torch.full_like(half, float("inf")))
    return torch.where(half.float() < scale, above, half).float()


def round_to(values: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """clamp(round(values / scale), low, high) as int8; `scale` broadcasts."""
    return (values / scale).round().clamp(low, high).to(torch.int8)


def weight_scale(rows: torch.Tensor, importance: torch.Tensor | None, bits: int) -> torch.Tensor:
    """The scale of each row that minimises the error of the product.

    Minimises sum_k h_k (w_k - s q_k)^2 over shares of the largest magnitude, h_k being the mean square of
    input k.

    Args:
        rows: float32 [R, K].
        importance: h, float32 [K] or [R, K]; None weighs all inputs alike.
        bits: 8 (-127..127) or 4 (-8..7).

    Returns:
        float32 [R], exact in float16.
    """
    # In pieces that stay in a core's cache: large matrices take a third of the time.
    step = max(1, _CACHED // rows.shape[1])
    every = torch.ones(()) if importance is None else importance.clamp(min=1e-12)
    found = []
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        found.append(_weight_scale(rows[piece], every[piece] if every.ndim == 2 else every, bits))
    return torch.cat(found)


def _weight_scale(rows: torch.Tensor, weight: torch.Tensor, bits: int) -> torch.Tensor:
    low, high = (-127, 127) if bits == 8 else (-8, 7)
    largest = rows.abs().amax(1).clamp(min=1e-12)
    best = torch.full_like(largest, float("inf"))
    chosen = exact_scale(largest / high)
    for ratio in _RATIOS.tolist():
        scale = exact_scale(largest * ratio / high)
        error = rows - (rows / scale[:, None]).round().clamp(low, high) * scale[:, None]
        loss = (weight * error * error).sum(1)
        better = loss < best
        best, chosen = torch.where(better, loss, best), torch.where(better, scale, chosen)
    return chosen


def activation_scale(values: torch.Tensor, largest: float, zero: int = 0) -> float:
    """The scale of an int8 tensor that minimises the mean square error of rounding and clipping.

    Args:
        values: float32 sample of the tensor, any shape.
        largest: greatest magnitude that was seen.
        zero: its zero point, -128 where nothing is negative or negative values may be lost.

    Returns:
        Exact in float16.
    """
    values = values.flatten()
    best, chosen = float("inf"), 0.0
    for ratio in _RATIOS.tolist():
        scale = exact_scale(torch.tensor(max(largest, 1e-12) * ratio / (127 - zero)))
        error = values - (values / scale).round().clamp(-128 - zero, 127 - zero) * scale
        loss = float((error * error).mean())
        if loss < best:
            best, chosen = loss, float(scale)
    return chosen


def round_in_turn(
    rows: torch.Tensor, scale: torch.Tensor, low: int, high: int, products: torch.Tensor
) -> torch.Tensor:
    """Integers whose errors undo each other in the product, column by column.

    When a column is rounded, those to its right take up its error as far as the inputs go together: with
    U the upper Cholesky factor of the inverse of H = E[x x^T], w_j -= (w_k - s q_k) U_kj / U_kk.
    Source: GPTQ, Frantar et al. 2022 (arXiv:2210.17323), section 3.

    Args:
        rows: float32 [N, K], in G groups one after the other.
        scale: float32 [N, K] or [N, 1].
        low: least integer.
        high: largest integer.
        products: H times any factor, float32 [G, K, K].

    Returns:
        int8 [N, K].
    """
    groups, width = products.shape[:2]
    mean = products.diagonal(dim1=1, dim2=2).double().mean(1).clamp(min=1e-12)
    damped = products.double() + torch.diag_embed((_DAMPING * mean)[:, None].expand(-1, width))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    steps = scale.expand_as(rows).reshape(groups, -1, width)
    left = rows.reshape(groups, -1, width).clone()
    integers = torch.empty(left.shape, dtype=torch.int8)
    block = width if rows.numel() < _AT_ONCE else _BLOCK
    for start in range(0, width, block):  # the columns behind a block take up its errors at once
        end = min(start + block, width)
        errors = torch.empty_like(left[:, :, start:end])
        for column in range(start, end):
            step = steps[:, :, column]
            rounded = (left[:, :, column] / step).round().clamp(low, high)
            integers[:, :, column] = rounded.to(torch.int8)
            error = (left[:, :, column] - rounded * step) / upper[:, column, column, None]
            left[:, :, column + 1 : end] -= error[:, :, None] * upper[:, None, column, column + 1 : end]
            errors[:, :, column - start] = error
        left[:, :, end:] -= errors @ upper[:, start:end, end:]
    return integers.view_as(rows)


def raise_for_bias(scale: torch.Tensor, bias: torch.Tensor, input_scale: float) -> torch.Tensor:
    """Raises weight scales until the bias fits an int32 with room: |bias| < 2^29 s_x s_w. [N], [N] -> [N]."""
    needed = exact_scale(bias.abs() / (input_scale * _BIAS_BOUND))
    return torch.maximum(scale, needed)
