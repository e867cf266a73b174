"""A square map of tokens as the square windows that tile it, and back.

Windows are cut along one axis at a time so that no tensor has more than four dimensions (Core ML takes
five).
"""

from __future__ import annotations

import torch


def partition(x: torch.Tensor, grid: int, window: int) -> torch.Tensor:
    """[B, grid * grid, C] -> [B n n, window * window, C], n = grid / window, all in reading order."""
    batch, _, width = x.shape
    w, n = window, grid // window
    x = x.view(batch * n, w, n, w * width).transpose(1, 2).contiguous()  # [B n, n, w, w C]
    return x.view(batch * n * n, w * w, width)


def unpartition(x: torch.Tensor, grid: int, window: int) -> torch.Tensor:
    """The inverse of `partition`."""
    w, n, width = window, grid // window, x.shape[-1]
    batch = x.shape[0] // (n * n)
    x = x.view(batch * n, n, w, w * width).transpose(1, 2).contiguous()  # [B n, w, n, w C]
    return x.view(batch, grid * grid, width)
