"""Position encodings: DETR's sine tables, the sine embedding of boxes, and 2-D rotary embedding."""

from __future__ import annotations

import math

import torch

TEMPERATURE = 10000.0


def _interleaved_sine(angles: torch.Tensor, features: int) -> torch.Tensor:
    """Sine of even, cosine of odd frequencies, interleaved: [...] angles -> [..., features]."""
    k = torch.arange(features // 2, dtype=torch.float32, device=angles.device)
    phase = angles[..., None] / TEMPERATURE ** (2 * k / features)
    return torch.stack((phase.sin(), phase.cos()), dim=-1).flatten(-2)


def sine_grid(size: int, width: int) -> torch.Tensor:
    """DETR's sine position encoding of a square grid (Carion et al. 2020, arXiv:2005.12872, appendix A.4).

    Args:
        size: side of the grid.
        width: channels; the first half encodes y, the second x.

    Returns:
        [size * size, width] float32, rows in reading order. Positions are 1-based and normalised to 2 pi.
    """
    angle = torch.arange(1, size + 1, dtype=torch.float32) / (size + 1e-6) * (2 * math.pi)
    axis = _interleaved_sine(angle, width // 2)  # [size, width / 2]
    y = axis[:, None, :].expand(size, size, -1)
    x = axis[None, :, :].expand(size, size, -1)
    return torch.cat((y, x), dim=-1).reshape(size * size, width)


def sine_boxes(boxes: torch.Tensor, width: int) -> torch.Tensor:
    """Sine embedding of boxes for the decoder's query positions (DAB-DETR, arXiv:2201.12329, equation 9).

    Args:
        boxes: [..., 4] cxcywh in 0..1.
        width: model width; each coordinate gets half of it.

    Returns:
        [..., 2 * width], in the order y, x, w, h.
    """
    cx, cy, w, h = (boxes * (2 * math.pi)).unbind(-1)
    return torch.cat([_interleaved_sine(c, width // 2) for c in (cy, cx, w, h)], dim=-1)


def sine_centres(boxes: torch.Tensor, width: int) -> torch.Tensor:
    """Sine embedding of box centres with raw height and width, for box prompts.

    Args:
        boxes: [..., 4] cxcywh in 0..1.
        width: model width.

    Returns:
        [..., width + 2]: sine of y, sine of x, h, w.
    """
    cx, cy, w, h = boxes.unbind(-1)
    y, x = (_interleaved_sine(c * (2 * math.pi), width // 2) for c in (cy, cx))
    return torch.cat((y, x, h[..., None], w[..., None]), dim=-1)


Rotary = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def rotary_tables(grid: int, head_dim: int, scale: float) -> Rotary:
    """2-D axial rotary embedding (RoFormer, arXiv:2104.09864, per axis as in SAM2/SAM3).

    Args:
        grid: side of the (window's) token grid.
        head_dim: channels of one head; the first half turns with x, the second with y.
        scale: factor on the positions: pretrained grid / this grid.

    Returns:
        What `rotate` multiplies each channel with, the one after it and the one before it, [grid * grid,
        head_dim] float32 each: cosine of the angle that channels 2k and 2k + 1 share, minus its sine for the
        first and 0, 0 and its sine for the second.
    """
    k = torch.arange(head_dim // 4, dtype=torch.float32)
    frequency = TEMPERATURE ** (-4 * k / head_dim)
    index = torch.arange(grid * grid)
    x, y = (index % grid).float() * scale, (index // grid).float() * scale
    angle = torch.cat((x[:, None] * frequency, y[:, None] * frequency), dim=-1)  # [N, head_dim / 2]
    angle = angle.repeat_interleave(2, dim=-1)
    first = torch.arange(head_dim) % 2 == 0
    return angle.cos(), -angle.sin() * first, angle.sin() * ~first


def rotate(x: torch.Tensor, tables: Rotary) -> torch.Tensor:
    """Rotates interleaved channel pairs: (x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin).

    Pairs are not cut apart and joined anew, which runtimes do value by value.

    Args:
        x: [B, h, N, d].
        tables: from `rotary_tables`.
    """
    own, after, before = tables
    following = torch.cat((x[..., 1:], x[..., :1]), dim=-1)
    preceding = torch.cat((x[..., -1:], x[..., :-1]), dim=-1)
    return x * own + following * after + preceding * before
