"""`QuantSpec`: the quantized model, as one safetensors file and one JSON beside it.

Exporters do not quantize: each writes these integers and scales in its own form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.folding import with_constants
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import (
    build_model,
    no_parameter_storage,
    open_weights,
    part_of,
    write_safetensors,
)
from sam3i_edge.quantize.batch_norm import drop_batch_norms
from sam3i_edge.quantize.modules import QuantizedLayer
from sam3i_edge.quantize.ranges import SMALLEST
from sam3i_edge.quantize.recipes import Kind

_FORMAT: Literal[1] = 1


class Layer(BaseModel):
    """How one layer is stored.

    Attributes:
        kind: the operator.
        bits: of the weights; 4-bit ones lie in int8 storage.
        group: input channels that share a scale, 0 for a scale per output channel or token.
        input_scale, output_scale: of static int8 activations, or None.
        input_zero, output_zero: their zero points: -128 where nothing is negative, else 0.
        options: of a convolution.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    bits: Literal[4, 8]
    group: int = Field(default=0, ge=0)
    input_scale: float | None = None
    output_scale: float | None = None
    input_zero: Literal[-128, 0] = 0
    output_zero: Literal[-128, 0] = 0
    options: dict[str, Any] = {}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = _FORMAT
    recipe: str
    layers: dict[str, Layer]
    notes: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class QuantSpec:
    """A quantized model.

    Attributes:
        recipe: name of the recipe, which is the precision.
        layers: module name -> how it is stored. A module that is not here is float.
        tensors: every tensor of the model: float ones by their own names; of a layer `X.weight` int8,
            `X.weight_scale` float32 [N] or [N, K / group], and `X.bias` where it has one, a multiple of s_x
            s_w where activations are static.
        notes: what made it: balance, calibration, modules kept float and why.
    """

    recipe: str
    layers: Mapping[str, Layer]
    tensors: Mapping[str, torch.Tensor]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, layer in self.layers.items():
            _check(name, layer, self.tensors)

    @property
    def integers(self) -> dict[str, torch.Tensor]:
        """Module name -> integer weights, int8."""
        return {name: self.tensors[f"{name}.weight"] for name in self.layers}

    def save(self, path: Path) -> None:
        """Writes `path` (.safetensors), and the JSON beside it under the same name."""
        write_safetensors(path, dict(self.tensors))
        layers = {name: layer.model_dump(exclude_defaults=True) for name, layer in self.layers.items()}
        content = {"format": _FORMAT, "recipe": self.recipe, "layers": layers, "notes": dict(self.notes)}
        path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path, graph: str | None = None) -> QuantSpec:
        """Reads what `save` wrote; tensors are mapped from the file.

        Args:
            path: the safetensors file.
            graph: only what this graph reads; None for everything.

        Raises:
            ArtifactError: a file is missing, damaged or of another version, or a layer breaks the format.
        """
        beside = path.with_suffix(".json")
        try:
            described = _File.model_validate_json(beside.read_text(encoding="utf-8"))
            tensors = {}
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  (no mapping)
                    if part_of(name, graph):
                        tensors[name] = file.get_tensor(name)
            layers = {name: layer for name, layer in described.layers.items() if part_of(name, graph)}
            return cls(described.recipe, layers, tensors, described.notes)
        except ValidationError as error:
            raise ArtifactError(f"{beside} is no quantized model: {first_problem(error)}") from error
        except (OSError, SafetensorError, ValueError) as error:
            raise ArtifactError(f"cannot read the quantized model {path}: {error}") from error

    def build(self, config: ModelConfig) -> SAM3I:
        """The model in evaluation mode; its tensors are these, not copies.

        What the spec does not hold (it was loaded for one graph) stays on the meta device.
        """
        with no_parameter_storage():
            model = with_constants(SAM3I(config), self.tensors)
        return self.put_into(model)

    def module(self, name: str) -> QuantizedLayer:
        """One layer as a module, over the spec's tensors."""
        layer = self.layers[name]
        return QuantizedLayer(
            layer.kind,
            self.tensors[f"{name}.weight"],
            self.tensors[f"{name}.weight_scale"],
            self.tensors.get(f"{name}.bias"),
            layer.input_scale,
            layer.output_scale,
            layer.options,
            layer.input_zero,
            layer.output_zero,
        ).eval()

    def put_into(self, model: SAM3I) -> SAM3I:
        """Replaces the modules of a float model and loads all tensors; gives the same model, in eval mode."""
        if not any(name.endswith("running_mean") for name in self.tensors):
            drop_batch_norms(model)
        for name in self.layers:
            replace_module(model, name, self.module(name))
        model.load_state_dict(dict(self.tensors), strict=False, assign=True)
        return model.requires_grad_(False).eval()


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Puts `module` at the place `name`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _check(name: str, layer: Layer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises ArtifactError where a layer breaks the format."""
    weight, scale, bias = (tensors.get(f"{name}.{part}") for part in ("weight", "weight_scale", "bias"))
    if weight is None or scale is None or weight.dtype != torch.int8:
        raise ArtifactError(f"layer {name} of the quantized model lacks int8 weights or their scales")
    table = layer.kind == "embedding"
    if weight.ndim != (2 if table or layer.kind == "linear" else 4) or not weight.numel():
        raise ArtifactError(f"layer {name} is a {layer.kind} with weights of shape {tuple(weight.shape)}")
    if layer.group and (layer.kind != "linear" or weight.shape[1] % layer.group):
        raise ArtifactError(
            f"layer {name} is a {layer.kind} of shape {tuple(weight.shape)}, which groups of {layer.group} "
            "do not divide"
        )
    if table and (bias is not None or {layer.input_scale, layer.output_scale} != {None}):
        raise ArtifactError(f"layer {name} is a table with a bias or static activations")
    channels = weight.shape[1 if layer.kind == "conv_transpose2d" else 0]
    wanted = (channels, weight.shape[1] // layer.group) if layer.group else (channels,)
    for part, value, shape in (("scales", scale, wanted), ("a bias", bias, (channels,))):
        if value is not None and (value.dtype != torch.float32 or tuple(value.shape) != shape):
            raise ArtifactError(
                f"layer {name} has {part} of {value.dtype} {tuple(value.shape)}, want torch.float32 {shape}"
            )
    limit = 127 if layer.bits == 8 else 8
    if int(weight.to(torch.int16).abs().max()) > limit or int(weight.max()) > (127 if layer.bits == 8 else 7):
        raise ArtifactError(f"layer {name} has integers outside those of {layer.bits} bits")
    scales = torch.cat(
        [scale.flatten(), torch.tensor([s for s in (layer.input_scale, layer.output_scale) if s is not None])]
    )
    exact = torch.equal(scales, scales.half().float()) and bool(torch.isfinite(scales).all())
    if not exact or bool((scales < SMALLEST).any()):
        raise ArtifactError(f"layer {name} has a scale that float16 does not hold exactly, or below 2^-14")
    if bias is not None and layer.input_scale is not None:
        most = float((bias.abs() / (scale * layer.input_scale)).max())
        if not most < 2.0**30:  # NaN too
            raise ArtifactError(f"layer {name} has a bias of {most:.3g} steps, an int32 takes up to 2^30")


def open_model(source: Path, config: ModelConfig, graph: str | None = None) -> SAM3I:
    """The model, or what one graph reads of it, in eval mode.

    Args:
        source: folder of float safetensors, or the file of a `QuantSpec`.
        config: sizes.
        graph: name of a graph; None for everything.
    """
    if source.is_dir():
        return build_model(config, open_weights(source, graph))
    return QuantSpec.load(source, graph).build(config)
