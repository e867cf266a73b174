"""Post-training quantization: a float model and a few pairs to a `QuantSpec`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from sam3i_edge.agreement import Pair
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.data.batch import Encode
from sam3i_edge.model.convnet import ConvEncoder, ResidualBlock, Stage
from sam3i_edge.model.efficientnet import EfficientNetEncoder, InvertedResidual
from sam3i_edge.model.sam3i import SAM3I, adapter_of
from sam3i_edge.quantize.balance import balance
from sam3i_edge.quantize.batch_norm import fold_batch_norms
from sam3i_edge.quantize.calibration import Calibration, Seen, calibrate
from sam3i_edge.quantize.modules import conv_options
from sam3i_edge.quantize.ranges import activation_scale, raise_for_bias, round_in_turn, round_to, weight_scale
from sam3i_edge.quantize.recipes import Kind, Recipe
from sam3i_edge.quantize.spec import Layer, QuantSpec
from sam3i_edge.runtimes import Progress, untold


class Prepared:
    """A float model made ready: batch norms folded, channels balanced, ranges known.

    Args:
        model: float, in eval mode; changed in place.
        recipe: what to quantize.
        pairs: for calibration, of all levels that will be used; see `calibrate`.
        encode: text to token ids int64 [32].
        preprocessing: of the model.
        boxes: box slots of the prompt.
        balanced: balance channels.
        base: an earlier quantized model with other adapters. Its base layers, integers and ranges are taken
            as they are, so level concept stays the same bit for bit.
        progress: called after each pair, and for each activation that is balanced.

    Attributes:
        model: the float model; the same function as the one given.
        modules: those that a pair reached, by name, and the token table: the ones to quantize.
        unreached: modules of the recipe that no pair reached; they stay float.
        notes: for the spec.
    """

    def __init__(
        self,
        model: SAM3I,
        recipe: Recipe,
        pairs: Sequence[Pair],
        encode: Encode,
        preprocessing: Preprocessing,
        *,
        boxes: int = 0,
        balanced: bool = True,
        base: QuantSpec | None = None,
        progress: Progress = untold,
    ) -> None:
        fold_batch_norms(model)
        self.model, self.recipe, self.base = model.requires_grad_(False).eval(), recipe, base
        wanted = recipe.modules(model)
        if base is not None:
            if base.recipe != recipe.name:
                raise ValueError(f"the base is quantized as {base.recipe!r}, want {recipe.name!r}")
            wanted = {name: module for name, module in wanted.items() if adapter_of(f"{name}.weight")}
        chains = list(relu_chains(model))
        # Of a pair of convolutions one may stay float; its input tells the other what passes the ReLU.
        watched = wanted | {name: model.get_submodule(name) for pair in chains for name in pair}
        self.seen: Calibration = calibrate(
            model, watched, pairs, encode, preprocessing, boxes=boxes, progress=progress
        )
        for producer, consumer in chains:
            # What ReLU removes needs no steps; with the reader's own scale nothing is rounded twice.
            if consumer in self.seen.inputs:
                self.seen.inputs[consumer].zero = -128
                if producer in self.seen.outputs:
                    self.seen.outputs[producer] = self.seen.inputs[consumer]
        self.modules = {
            name: module
            for name, module in wanted.items()
            if name in self.seen.inputs or isinstance(module, nn.Embedding)
        }
        self.unreached = sorted(wanted.keys() - self.modules.keys())
        alphas = {}
        if balanced and recipe.static_activations:
            alphas = balance(model, self.modules, self.seen, progress)
        self.notes: dict[str, Any] = {
            "calibration": {"pairs": self.seen.pairs, "images": self.seen.images},
            "balanced": alphas,
            "unreached": self.unreached,
        }

    def quantize(self, keep_float: Collection[str] = (), progress: Progress = untold) -> QuantSpec:
        """The quantized model.

        Args:
            keep_float: names of modules that stay float beside those of the recipe.
            progress: called after each layer.
        """
        words = f"quantizing {len(self.modules.keys() - set(keep_float))} layers as {self.recipe.name}"
        progress(words, 0.0)
        layers: dict[str, Layer] = {}
        tensors: dict[str, torch.Tensor] = dict(self.model.state_dict())
        for number, (name, module) in enumerate(self.modules.items(), 1):
            if name in keep_float:
                continue
            kind = self.recipe.kind(name, module)
            assert kind is not None
            if isinstance(module, nn.Embedding):
                layers[name], own = quantize_table(module)
            else:
                seen, output = self.seen.inputs[name], self.seen.outputs.get(name)
                layers[name], own = quantize_module(kind, name, module, self.recipe, seen, output)
            tensors |= {f"{name}.{part}": value for part, value in own.items()}
            progress(words, number / len(self.modules))
        if self.base is not None:
            layers = {
                **{n: v for n, v in self.base.layers.items() if not adapter_of(f"{n}.weight")},
                **layers,
            }
            tensors = {
                **{n: v for n, v in tensors.items() if adapter_of(n)},
                **{n: v for n, v in self.base.tensors.items() if not adapter_of(n)},
            }
        notes = {**self.notes, "kept_float": sorted(keep_float)}
        return QuantSpec(self.recipe.name, layers, tensors, notes)


def relu_chains(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of convolutions whose output is read through ReLU or ReLU6 by another, with that one's name."""
    for name, module in model.named_modules():
        if isinstance(module, ConvEncoder):
            yield f"{name}.stem.0", f"{name}.stages.0.down.0"
        elif isinstance(module, Stage):
            yield f"{name}.down.0", f"{name}.blocks.0.conv1.0"
        elif isinstance(module, ResidualBlock):
            yield f"{name}.conv1.0", f"{name}.conv2.0"
        elif isinstance(module, EfficientNetEncoder):
            yield f"{name}.stem.0", f"{name}.stages.0.0.depthwise.0"
        elif isinstance(module, InvertedResidual):
            if module.expand is not None:
                yield f"{name}.expand.0", f"{name}.depthwise.0"
            yield f"{name}.depthwise.0", f"{name}.project.0"


def quantize_table(module: nn.Embedding) -> tuple[Layer, dict[str, torch.Tensor]]:
    """A token table: how it is stored, and its `weight` and `weight_scale`, one a token."""
    rows = module.weight.detach()
    scale = weight_scale(rows, None, 8)
    integers = round_to(rows, scale[:, None], -127, 127)
    return Layer(kind="embedding", bits=8), {"weight": integers, "weight_scale": scale}


def quantize_module(
    kind: Kind, name: str, module: nn.Module, recipe: Recipe, seen: Seen, output: Seen | None
) -> tuple[Layer, dict[str, torch.Tensor]]:
    """One layer: how it is stored, and its `weight`, `weight_scale` and `bias`.

    The bias takes up the mean of what rounding the weights did to the output: b' = b - (W' - W) E[x].
    Source: Nagel et al. 2019 (arXiv:1906.04721), section 4.2.
    """
    assert isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
    rows = weight_rows(kind, module.weight.detach())  # [N, K]
    importance, mean = (_by_weight(module, rows, values) for values in (seen.mean_square, seen.mean))
    bias = None if module.bias is None else module.bias.detach()
    bits, group = recipe.bits(name, module), 0
    input_scale = output_scale = None
    if recipe.static_activations:
        input_scale = activation_scale(seen.rows, float(seen.largest.max()), seen.zero)
        if output is not None:
            output_scale = activation_scale(output.rows, float(output.largest.max()), output.zero)
    if bits == 4:
        group = recipe.group
        weigh = importance.view(1, -1, group).expand(len(rows), -1, -1).reshape(-1, group)
        scale = weight_scale(rows.view(-1, group), weigh, 4).view(len(rows), -1)
    else:
        scale = weight_scale(rows, importance, 8)
        if bias is not None and input_scale is not None:
            scale = raise_for_bias(scale, bias, input_scale)
    steps = scale.repeat_interleave(rows.shape[1] // scale.shape[1], 1) if group else scale[:, None]
    low, high = (-8, 7) if bits == 4 else (-127, 127)
    if seen.products is None:
        integers = round_to(rows, steps, low, high)
    else:
        integers = round_in_turn(rows, steps, low, high, seen.products)
    if bias is not None:
        if isinstance(module, nn.ConvTranspose2d):
            mean = mean / prod(module.stride)  # each output pixel sees this share of the taps
        bias = bias - ((integers.float() * steps - rows) * mean).sum(1)
        if input_scale is not None:
            bias = exact_bias(bias, scale, input_scale)
    layer = Layer(
        kind=kind,
        bits=bits,
        group=group,
        input_scale=input_scale,
        output_scale=output_scale,
        input_zero=0 if input_scale is None else seen.zero,
        output_zero=0 if output_scale is None or output is None else output.zero,
        options={} if isinstance(module, nn.Linear) else conv_options(module),
    )
    tensors = {"weight": weight_from_rows(kind, integers, module.weight.shape), "weight_scale": scale}
    return layer, tensors if bias is None else {**tensors, "bias": bias}


def _by_weight(module: nn.Module, rows: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    """Values of input channels [C] for the weights that read them: [K], or [N, K] where there are groups."""
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    taps = rows.shape[1] * groups // len(channels)  # of a kernel
    each = channels.view(groups, -1).repeat_interleave(taps, 1)
    return each[0] if groups == 1 else each.repeat_interleave(len(rows) // groups, 0)


def weight_rows(kind: Kind, weight: torch.Tensor) -> torch.Tensor:
    """A weight with a row for each output channel: [N, K], input channels first, then taps."""
    return (weight.transpose(0, 1) if kind == "conv_transpose2d" else weight).flatten(1)


def weight_from_rows(kind: Kind, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The inverse of `weight_rows`."""
    if kind == "conv_transpose2d":
        return rows.view(shape[1], shape[0], *shape[2:]).transpose(0, 1).contiguous()
    return rows.view(shape)


def exact_bias(bias: torch.Tensor, weight_scale: torch.Tensor, input_scale: float) -> torch.Tensor:
    """The nearest multiples of s_x s_w, which an int32 holds: [N], [N] -> [N]."""
    step = (weight_scale.double() * input_scale).float()
    return (bias / step).round() * step
