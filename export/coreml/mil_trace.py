"""A graph as the program that coremltools converts: Core ML's dtypes, and operators that it knows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.export.coreml.mil_reference import QuantizedWeight, quiet
from sam3i_edge.export.float32_places import stays_float32
from sam3i_edge.model.graph_specs import GraphSpec
from sam3i_edge.quantize.modules import QuantizedLayer
from sam3i_edge.quantize.spec import replace_module

_aten = torch.ops.aten


def trace(spec: GraphSpec) -> torch.export.ExportedProgram:
    """The exported program of a graph; 4-bit layers and tables are traced as coremltools reads them."""
    examples = {
        name: value.to(torch.int32) if value.dtype in (torch.int64, torch.bool) else value
        for name, value in spec.inputs.items()
    }
    module = _Interface(spec).eval()
    with _readable_layers(module), quiet(), torch.no_grad():
        program = torch.export.export(module, (), kwargs=examples)
        decomposed: torch.export.ExportedProgram = program.run_decompositions(
            {
                _aten.alias.default: lambda x: x,
                _aten.__and__.Tensor: _and,
                _aten.bitwise_and.Tensor: _and,
                _aten.pad.default: _pad,
                _aten.scaled_dot_product_attention.default: _attention,
            }
        )
    return decomposed


def results_of(program: torch.export.ExportedProgram) -> list[torch.Tensor]:
    """The outputs in order, as fake tensors."""
    (output,) = [node for node in program.graph.nodes if node.op == "output"]
    return [node.meta["val"] for node in output.args[0]]


def quantized_constants(program: torch.export.ExportedProgram) -> tuple[set[Any], set[tuple[float, int]]]:
    """Keys of quantized weights (`QuantizedWeight.key`); scales of activations, with the steps below zero."""
    signature = program.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = {**signature.inputs_to_lifted_tensor_constants}

    def tensor(node: torch.fx.Node) -> np.ndarray[Any, Any]:
        if node.name in constants:
            value = program.constants[constants[node.name]]
        else:
            name = held[node.name]
            value = program.state_dict[name] if name in program.state_dict else program.constants[name]
        array: np.ndarray[Any, Any] = value.detach().numpy()
        return array

    weights, steps = set(), set()
    for node in program.graph.nodes:
        target = str(node.target)
        if target == "quantized_decomposed.dequantize_per_channel.default":
            integers, scale, axis = tensor(node.args[0]), tensor(node.args[1]), node.args[3]
            shape = [1] * integers.ndim
            shape[axis] = -1
            weights.add(QuantizedWeight("", integers, scale.reshape(shape)).key())
        elif target == "torchao.dequantize_affine.default":
            weights.add(QuantizedWeight("", tensor(node.args[0]), tensor(node.args[2])).key())
        elif target == "quantized_decomposed.quantize_per_tensor.default":
            steps.add((float(node.args[1]), int(node.args[2]) + 128))
    return weights, steps


def places_of_float32(program: torch.export.ExportedProgram) -> Callable[[Any], bool]:
    """Tells of a MIL operation whether `stays_float32` where it was traced, which its stack trace says."""
    from coremltools.converters.mil.mil.scope import ScopeSource

    modules: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        place = node.meta.get("stack_trace")
        classes = [str(kind) for _, kind in node.meta.get("nn_module_stack", {}).values()]
        # A layer of torch's own is called in a line of its caller's: the innermost counts.
        if place and len(classes) >= len(modules.get(place, [])):
            modules[place] = classes

    def stays(op: Any) -> bool:
        places = op.scopes.get(ScopeSource.EXIR_STACK_TRACE, [])  # several of a fused one
        return bool(places) and all(stays_float32(modules.get(place, []), op.op_type) for place in places)

    return stays


class _Interface(nn.Module):
    """A graph with the dtypes that Core ML knows: masks come and go as int32."""

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__()
        self.inner = spec.module
        self.masks = [name for name, example in spec.inputs.items() if example.dtype == torch.bool]

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = [value != 0 if name in self.masks else value for name, value in inputs.items()]
        found = self.inner(*given)
        found = found if isinstance(found, tuple) else (found,)
        return tuple(value.to(torch.int32) if value.dtype == torch.bool else value for value in found)


class _GroupedLayer(QuantizedLayer):
    """A 4-bit linear layer whose weight is made by the operator that coremltools turns into a constant."""

    def dequantized_weight(self) -> torch.Tensor:
        from torchao.quantization.quant_primitives import dequantize_affine

        block = [1, self.weight.shape[1] // self.weight_scale.shape[1]]
        weight: torch.Tensor = dequantize_affine(
            self.weight, block, self.weight_scale, None, torch.int8, -8, 7
        )
        return weight


class _Table(QuantizedLayer):
    """A token table whose rows are gathered from a constant that Core ML holds as integers with scales."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.embedding(x, self.dequantized_weight())


@contextlib.contextmanager
def _readable_layers(module: nn.Module) -> Iterator[None]:
    """Within the block, 4-bit layers of the module are `_GroupedLayer`, and its table is `_Table`."""
    found = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, QuantizedLayer) and (layer.grouped or layer.kind == "embedding")
    }
    try:
        for name, layer in found.items():
            tensors = dict(layer.named_buffers())
            form = _GroupedLayer if layer.grouped else _Table
            readable = form(layer.kind, tensors["weight"], tensors["weight_scale"], tensors.get("bias"))
            replace_module(module, name, readable.eval())
        yield
    finally:
        for name, layer in found.items():
            replace_module(module, name, layer)


# coremltools has no `&`.
def _and(x: torch.Tensor, y: torch.Tensor) -> Any:
    return torch.logical_and(x, y) if x.dtype == y.dtype == torch.bool else NotImplemented


# coremltools turns padded booleans into floats.
def _pad(x: torch.Tensor, pad: list[int], mode: str = "constant", value: float | None = None) -> Any:
    if x.dtype != torch.bool:
        return NotImplemented
    return torch.constant_pad_nd(x.to(torch.int32), pad, int(value or 0)) != 0


# One form for all targets, in which the softmax is an operation of its own and can be kept in float32.
def _attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if dropout_p or is_causal or enable_gqa or (attn_mask is not None and attn_mask.dtype == torch.bool):
        return NotImplemented
    logits = torch.matmul(q * (q.shape[-1] ** -0.5 if scale is None else scale), k.transpose(-2, -1))
    return torch.matmul(torch.softmax(logits if attn_mask is None else logits + attn_mask, dim=-1), v)
