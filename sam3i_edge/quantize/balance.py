"""Moves the spread of activation channels into weights, where a scale per channel absorbs it.

x W = (x / s) (s W): s divides what makes x (a norm's affine part, or the rows of a linear layer before a
ReLU or an attention product) and multiplies the columns of what reads it. The float model stays the same up
to rounding. Source: SmoothQuant (Xiao et al. 2023, arXiv:2211.10438), equation 4, with its alpha searched for
each group; through linear layers, cross-layer equalisation (Nagel et al. 2019, arXiv:1906.04721), section
4.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from sam3i_edge.model.adapters import TextAdapter
from sam3i_edge.model.attention import Attention, FeedForward
from sam3i_edge.model.fusion_encoder import FusionLayer
from sam3i_edge.model.geometry_encoder import GeometryLayer
from sam3i_edge.model.text_encoder import TextBlock
from sam3i_edge.model.vit import ViTBlock
from sam3i_edge.quantize.calibration import Calibration
from sam3i_edge.quantize.ranges import activation_scale, weight_scale
from sam3i_edge.runtimes import Progress, untold

_ALPHAS = (0.25, 0.4, 0.5, 0.6, 0.75)
_ROWS = 512  # of the sample, and of each weight, to compare errors on
_GAIN = 0.97  # of the error that balancing must reach to be worth a change


@dataclass(frozen=True, slots=True)
class Group:
    """What makes an activation, and all that reads it.

    Attributes:
        producer: name of a LayerNorm or Linear.
        consumers: names of Linears.
    """

    producer: str
    consumers: tuple[str, ...]


def groups(model: nn.Module) -> Iterator[Group]:
    """The places of a model where channels can be balanced, in its order."""
    for name, module in model.named_modules():
        if isinstance(module, FeedForward) and not module.gelu:
            yield Group(f"{name}.fc1", (f"{name}.fc2",))
        elif isinstance(module, Attention):
            yield Group(f"{name}.v_proj", (f"{name}.o_proj",))
        elif isinstance(module, (ViTBlock, TextBlock)):
            yield Group(f"{name}.norm1", tuple(f"{name}.attn.{part}_proj" for part in "qkv"))
            yield Group(f"{name}.norm2", (f"{name}.mlp.fc1",))
        elif isinstance(module, TextAdapter):
            yield Group(f"{name}.attn_norm", tuple(f"{name}.attn.{part}_proj" for part in "qkv"))
            yield Group(f"{name}.mlp_norm", (f"{name}.down_proj",))
        elif isinstance(module, (FusionLayer, GeometryLayer)):
            yield Group(f"{name}.norm2", (f"{name}.cross_attn.q_proj",))
            yield Group(f"{name}.norm3", (f"{name}.mlp.fc1",))


@torch.no_grad()
def balance(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    seen: Calibration,
    progress: Progress = untold,
) -> dict[str, float]:
    """Balances, in place, every group of which all consumers are quantized and whose error falls.

    Args:
        model: float, in eval mode; its weights change.
        modules: those that will be quantized, by name.
        seen: of these; what it says of inputs is changed along.
        progress: called before each group, and when all are done.

    Returns:
        Producer's name -> alpha, for the groups that were changed.
    """
    changed = {}
    whole = [
        group for group in groups(model) if all(n in modules and n in seen.inputs for n in group.consumers)
    ]
    words = f"balancing the channels of {len(whole)} activations"
    for number, group in enumerate(whole):
        progress(words, number / len(whole))
        readers = [modules[name] for name in group.consumers]
        found = seen.inputs[group.consumers[0]]
        weights = [reader.weight for reader in readers if isinstance(reader, nn.Linear)]
        columns = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0).clamp(min=1e-6)
        largest = found.largest.clamp(min=1e-6)
        rows = _some(found.rows)
        parts = [_some(weight) for weight in weights]
        start = best = _error(rows, parts, found.largest, torch.ones_like(columns))
        chosen: tuple[float, torch.Tensor] | None = None
        for alpha in _ALPHAS:
            factor = largest**alpha / columns ** (1 - alpha)
            factor = (factor / factor.log().mean().exp()).clamp(1e-3, 1e3)
            error = _error(rows, parts, found.largest, factor)
            if error < best and error < _GAIN * start:
                best, chosen = error, (alpha, factor)
        if chosen is None:
            continue
        alpha, factor = chosen
        producer = model.get_submodule(group.producer)
        _divide(producer, factor)
        for name, reader in zip(group.consumers, readers, strict=True):
            reader.weight.mul_(factor)  # type: ignore[operator]
            seen.inputs[name].scale(1 / factor)
        changed[group.producer] = alpha
    if whole:
        progress(words, 1.0)
    return changed


def _some(rows: torch.Tensor) -> torch.Tensor:
    """At least `_ROWS` rows, evenly taken, where there are twice as many or more; else all."""
    return rows[:: max(1, len(rows) // _ROWS)]


def _divide(producer: nn.Module, factor: torch.Tensor) -> None:
    if isinstance(producer, nn.LayerNorm):
        producer.weight.div_(factor)
    elif isinstance(producer, nn.Linear):
        producer.weight.div_(factor[:, None])
    else:
        raise TypeError(f"cannot balance the output of a {type(producer).__name__}")
    if producer.bias is not None:
        producer.bias.div_(factor)


def _error(
    rows: torch.Tensor, weights: list[torch.Tensor], largest: torch.Tensor, factor: torch.Tensor
) -> float:
    """Mean square error of the products of rows [R, K] when both sides are int8, balanced by `factor` [K]."""
    x = rows / factor
    scale = activation_scale(x, float((largest / factor).max()))
    rounded = (x / scale).round().clamp(-128, 127) * scale
    total = 0.0
    for weight in weights:
        balanced = weight * factor
        steps = weight_scale(balanced, None, 8)[:, None]
        integers = (balanced / steps).round().clamp(-127, 127)
        total += float((rounded @ (integers * steps).T - rows @ weight.T).square().mean())
    return total
