"""Quantized layers: integer weights with their scales, computed by operators that every exporter reads.

y = W x + b with W = s_w q_w, and where activations are static x = s_x (q_x - z) with
q_x = clamp(round(x / s_x) + z, -128, 127). The zero point z is -128 where ReLU lets nothing negative pass,
else 0. A table gathers its integers, and multiplies them behind. Source: Jacob et al. 2018
(arXiv:1712.05877), equations 1 and 7.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed as _  # noqa: F401  (registers torch.ops.quantized_decomposed)
from torch.nn import functional as F

from sam3i_edge.kernels.int4_linear import int4_linear, pack_int4
from sam3i_edge.kernels.int8_linear import int8_linear
from sam3i_edge.quantize.recipes import Kind

_ops = torch.ops.quantized_decomposed


class QuantizedLayer(nn.Module):
    """A linear layer, convolution or token table of integer weights.

    Args:
        kind: the operator.
        weight: int8, in the float layer's layout; 4-bit values (-8..7) lie in int8 storage.
        weight_scale: float32 [N] a scale per output channel or token, or [N, K / group] for groups along the
            input.
        bias: float32 [N], or None.
        input_scale: of static int8 inputs, or None for float inputs.
        output_scale: of static int8 outputs, or None.
        input_zero, output_zero: their zero points, -128 or 0.
        options: stride, padding, dilation, groups of a convolution.
    """

    weight: torch.Tensor
    weight_scale: torch.Tensor
    bias: torch.Tensor | None
    _zero: torch.Tensor

    def __init__(
        self,
        kind: Kind,
        weight: torch.Tensor,
        weight_scale: torch.Tensor,
        bias: torch.Tensor | None,
        input_scale: float | None = None,
        output_scale: float | None = None,
        options: dict[str, Any] | None = None,
        input_zero: int = 0,
        output_zero: int = 0,
    ) -> None:
        super().__init__()
        self.kind, self.options = kind, options or {}
        self.input_scale, self.output_scale = input_scale, output_scale
        self.input_zero, self.output_zero = input_zero, output_zero
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale)
        self.register_buffer("bias", bias)
        self._packed: torch.Tensor | None = None  # nibbles, made when a GPU first asks
        zero = torch.zeros(weight_scale.shape[0], dtype=torch.int64, device=weight.device)
        self.register_buffer("_zero", zero, persistent=False)

    @property
    def grouped(self) -> bool:
        """Whether scales belong to groups along the input: 4 bits."""
        return self.weight_scale.ndim == 2

    def dequantized_weight(self) -> torch.Tensor:
        """Float32, in the layout of `weight`."""
        if self.grouped:
            rows, groups = self.weight_scale.shape
            values = self.weight.view(rows, groups, -1).to(torch.float32) * self.weight_scale[..., None]
            return values.view(rows, -1)
        axis = 1 if self.kind == "conv_transpose2d" else 0
        restored: torch.Tensor = _ops.dequantize_per_channel(
            self.weight, self.weight_scale, self._zero, axis, -127, 127, torch.int8
        )
        return restored

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the float layer. On a GPU linear layers run as the kernels of `sam3i_edge.kernels`."""
        if self.kind == "embedding":
            return F.embedding(x, self.weight).to(torch.float32) * F.embedding(x, self.weight_scale[:, None])
        if x.is_cuda and self.kind == "linear" and (self.grouped or self.input_scale is not None):
            return self._kernel(x)
        if self.input_scale is not None:
            x = fake_quantize(x, self.input_scale, self.input_zero)
        weight = self.dequantized_weight()
        if self.kind == "linear":
            x = F.linear(x, weight, self.bias)
        elif self.kind == "conv2d":
            x = F.conv2d(x, weight, self.bias, **self.options)
        else:
            x = F.conv_transpose2d(x, weight, self.bias, **self.options)
        if self.output_scale is None:
            return x
        return fake_quantize(x, self.output_scale, self.output_zero)

    def _kernel(self, x: torch.Tensor) -> torch.Tensor:
        if self.input_scale is not None:
            return int8_linear(x, self.weight, self.weight_scale, self.bias, self.input_scale)
        if self._packed is None or self._packed.device != x.device:
            self._packed = pack_int4(self.weight)
        return int4_linear(x, self._packed, self.weight_scale.half(), self.bias)


def fake_quantize(x: torch.Tensor, scale: float, zero: int = 0) -> torch.Tensor:
    """Rounds to int8 in steps of `scale` from the zero point, and back to float."""
    steps = _ops.quantize_per_tensor(x, scale, zero, -128, 127, torch.int8)
    restored: torch.Tensor = _ops.dequantize_per_tensor(steps, scale, zero, -128, 127, torch.int8)
    return restored


def conv_options(module: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, Any]:
    """The arguments of a convolution's functional form.

    Raises:
        ValueError: a padding mode or output padding that quantized layers do not know.
    """
    if module.padding_mode != "zeros" or any(getattr(module, "output_padding", (0,))):
        raise ValueError(
            f"cannot quantize a convolution with {module.padding_mode} padding and output padding "
            f"{module.output_padding}: keep it float"
        )
    names = ("stride", "padding", "dilation", "groups")
    values = {name: getattr(module, name) for name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
