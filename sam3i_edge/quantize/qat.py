"""Quantization-aware training: layers that compute with rounded weights and activations, and still learn.

The rounding passes gradients straight through where it did not clip. Source: Jacob et al. 2018
(arXiv:1712.05877), section 3; the fake-quantizers are torchao's (`torchao.quantization.pt2e`).

Scales are those of post-training quantization and do not move: observers are off from the first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.quantize._torchao import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from sam3i_edge.quantize.batch_norm import fold_batch_norms
from sam3i_edge.quantize.modules import conv_options
from sam3i_edge.quantize.ptq import exact_bias, weight_from_rows, weight_rows
from sam3i_edge.quantize.recipes import Kind
from sam3i_edge.quantize.spec import Layer, QuantSpec, replace_module

_INSIDE = 0.49  # of a step, from an integer: still rounds to it


class TrainedLayer(nn.Module):
    """The training form of a `QuantizedLayer`.

    Args:
        kind: the operator.
        module: the float layer; its parameters are taken over.
        bits, group: of the weights.
        static_input, static_output: whether the input and the output are int8.
    """

    def __init__(
        self, kind: Kind, module: nn.Module, bits: int, group: int, static_input: bool, static_output: bool
    ) -> None:
        super().__init__()
        assert isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding))
        self.kind, self.bits, self.group = kind, bits, group
        self.options: dict[str, Any] = {}
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            self.options = conv_options(module)
        self.weight = module.weight
        self.bias = None if isinstance(module, nn.Embedding) else module.bias
        rows = weight_rows(kind, module.weight)
        self.weight_fake_quant = _per_row(rows.numel() // group if group else len(rows), bits)
        self.input_fake_quant = _per_tensor() if static_input else None
        self.output_fake_quant = _per_tensor() if static_output else None

    def rounded_rows(self) -> torch.Tensor:
        """The weights as the integers stand for them, [N, K] float32."""
        rows = weight_rows(self.kind, self.weight)
        grouped = rows.view(-1, self.group) if self.group else rows
        rounded: torch.Tensor = self.weight_fake_quant(grouped)
        return rounded.view(rows.shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the float layer."""
        if self.input_fake_quant is not None:
            x = self.input_fake_quant(x)
        weight = weight_from_rows(self.kind, self.rounded_rows(), self.weight.shape)
        if self.kind == "embedding":
            x = F.embedding(x, weight)
        elif self.kind == "linear":
            x = F.linear(x, weight, self.bias)
        elif self.kind == "conv2d":
            x = F.conv2d(x, weight, self.bias, **self.options)
        else:
            x = F.conv_transpose2d(x, weight, self.bias, **self.options)
        return x if self.output_fake_quant is None else self.output_fake_quant(x)

    @torch.no_grad()
    def start_from(self, spec: QuantSpec, name: str) -> None:
        """Takes the scales and the corrected bias of a layer of a spec: training starts there.

        Weights stay as near to the float ones as they can while they round to the spec's integers.
        """
        if self.bias is not None:
            self.bias.copy_(spec.tensors[f"{name}.bias"])
        own = spec.tensors[f"{name}.weight_scale"]
        self.weight_fake_quant.scale.copy_(own.flatten())
        rows, integers = (
            weight_rows(self.kind, values.float()) for values in (self.weight, spec.tensors[f"{name}.weight"])
        )
        steps = own.view(len(rows), -1).repeat_interleave(rows.shape[1] * len(rows) // own.numel(), 1)
        near = torch.clamp(rows, (integers - _INSIDE) * steps, (integers + _INSIDE) * steps)
        self.weight.copy_(weight_from_rows(self.kind, near, self.weight.shape))
        layer = spec.layers[name]
        for fake, scale, zero in (
            (self.input_fake_quant, layer.input_scale, layer.input_zero),
            (self.output_fake_quant, layer.output_scale, layer.output_zero),
        ):
            if fake is not None and scale is not None:
                fake.scale.fill_(scale)
                fake.zero_point.fill_(zero)

    @torch.no_grad()
    def convert(self) -> tuple[Layer, dict[str, torch.Tensor]]:
        """The layer's integers, exactly those that training computed with."""
        rows = weight_rows(self.kind, self.weight)
        scale = self.weight_fake_quant.scale.clone()
        fake = self.weight_fake_quant
        was = bool(fake.fake_quant_enabled[0])
        fake.enable_fake_quant()
        grouped = (rows.view(-1, self.group) if self.group else rows).float()
        # What the fake-quantizer gives is scale times an integer: dividing finds it again, whatever way of
        # rounding it has.
        integers = (fake(grouped) / scale[:, None]).round().to(torch.int8).view(rows.shape)
        fake.enable_fake_quant(was)
        if self.group:
            scale = scale.view(len(rows), -1)
        (input_scale, input_zero), (output_scale, output_zero) = (
            (None, 0) if part is None else (float(part.scale), int(part.zero_point))
            for part in (self.input_fake_quant, self.output_fake_quant)
        )
        layer = Layer(
            kind=self.kind,
            bits=4 if self.bits == 4 else 8,
            group=self.group,
            input_scale=input_scale,
            output_scale=output_scale,
            input_zero=-128 if input_zero else 0,
            output_zero=-128 if output_zero else 0,
            options=self.options,
        )
        tensors = {"weight": weight_from_rows(self.kind, integers, self.weight.shape), "weight_scale": scale}
        if self.bias is not None:
            bias = self.bias.detach().clone()
            tensors["bias"] = bias if input_scale is None else exact_bias(bias, scale, input_scale)
        return layer, tensors


def insert_trained_layers(model: SAM3I, spec: QuantSpec) -> SAM3I:
    """Gives a float model the training form of every layer of a spec, with its scales and biases; in place.

    Args:
        model: float; batch norms are folded.
        spec: of the same model, from post-training quantization.
    """
    fold_batch_norms(model)
    for name, layer in spec.layers.items():
        static = layer.input_scale is not None, layer.output_scale is not None
        trained = TrainedLayer(layer.kind, model.get_submodule(name), layer.bits, layer.group, *static)
        trained.start_from(spec, name)
        replace_module(model, name, trained)
    return model


def enable(model: SAM3I, on: bool) -> None:
    """Turns rounding on or off: a delayed start lets distillation settle first."""
    for module in model.modules():
        if isinstance(module, FakeQuantize):
            module.enable_fake_quant(on)


def to_spec(model: SAM3I, recipe: str, notes: Mapping[str, Any]) -> QuantSpec:
    """The quantized model of a trained one."""
    trained = {name: m for name, m in model.named_modules() if isinstance(m, TrainedLayer)}
    own = tuple(f"{name}." for name in trained)
    tensors = {n: v.detach().cpu().clone() for n, v in model.state_dict().items() if not n.startswith(own)}
    layers = {}
    for name, module in trained.items():
        layers[name], parts = module.convert()
        tensors |= {f"{name}.{part}": value.cpu() for part, value in parts.items()}
    return QuantSpec(recipe, layers, tensors, notes)


def changed_share(one: QuantSpec, other: QuantSpec) -> float:
    """The share of integer weights in which two quantized models of one structure differ, 0..1."""
    differ = total = 0
    for name, integers in one.integers.items():
        differ += int((integers != other.integers[name]).sum())
        total += integers.numel()
    return differ / max(total, 1)


def _per_row(rows: int, bits: int) -> FakeQuantize:
    low, high = (-8, 7) if bits == 4 else (-127, 127)
    fake = FakeQuantize(
        MovingAveragePerChannelMinMaxObserver,
        quant_min=low,
        quant_max=high,
        dtype=torch.int8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
    fake.scale.resize_(rows).fill_(1.0)
    fake.zero_point.resize_(rows).fill_(0)
    fake.disable_observer()
    return fake


def _per_tensor() -> FakeQuantize:
    fake = FakeQuantize(
        MovingAverageMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.int8,
        qscheme=torch.per_tensor_symmetric,
    )
    fake.disable_observer()
    return fake
