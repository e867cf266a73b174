"""A quantized model of random weights, for time and memory at sizes that take long to calibrate.

Nothing was calibrated, so its answers mean nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.quantize.modules import conv_options
from sam3i_edge.quantize.ptq import exact_bias, quantize_table, weight_from_rows, weight_rows
from sam3i_edge.quantize.ranges import exact_scale, raise_for_bias, round_to
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.quantize.spec import Layer, QuantSpec

_STEP = 0.03125  # of every activation


@torch.no_grad()
def make_int8(config: ModelConfig, path: Path) -> None:
    """Writes a `QuantSpec` of random weights."""
    torch.manual_seed(0)
    model, recipe = SAM3I(config).eval(), RECIPES["int8"]
    layers, tensors = {}, dict(model.state_dict())
    for name, module in recipe.modules(model).items():
        if isinstance(module, nn.Embedding):
            layers[name], own = quantize_table(module)
        else:
            layers[name], own = _int8(module, recipe.kind(name, module))
        tensors |= {f"{name}.{part}": value for part, value in own.items()}
    QuantSpec("int8", layers, tensors).save(path)


def _int8(module: nn.Module, kind: Any) -> tuple[Layer, dict[str, torch.Tensor]]:
    assert isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
    rows = weight_rows(kind, module.weight)
    scale = exact_scale(rows.abs().amax(1).clamp(min=1e-6) / 127)
    if module.bias is not None:
        scale = raise_for_bias(scale, module.bias, _STEP)
    own = {
        "weight": weight_from_rows(kind, round_to(rows, scale[:, None], -127, 127), module.weight.shape),
        "weight_scale": scale,
    }
    if module.bias is not None:
        own["bias"] = exact_bias(module.bias, scale, _STEP)
    plain = isinstance(module, nn.Linear)
    layer = Layer(
        kind=kind,
        bits=8,
        input_scale=_STEP,
        output_scale=None if plain else _STEP,
        options={} if plain else conv_options(module),
    )
    return layer, own
