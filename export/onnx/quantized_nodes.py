"""Quantized layers in ONNX: what the exporter gives, in the forms that runtimes have integer kernels for.

A static int8 layer is exported as quantize, dequantize, operator. Three changes make it fuse in ONNX Runtime
1.31: linear weights lie as [K, N] without a Transpose behind them, biases are int32, activations are shifted
to uint8. 4-bit layers become `MatMulNBits`. Where activations are float, weights of convolutions and small
ones of linear layers are cast and multiplied, which the runtime does once. Integers and scales stay those of
the `QuantSpec`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from sam3i_edge.errors import ExportError
from sam3i_edge.export.onnx.deconvolutions import is_pointwise, to_pointwise
from sam3i_edge.quantize.modules import QuantizedLayer
from sam3i_edge.quantize.spec import Layer, QuantSpec, replace_module

_CONVOLUTIONS = ("Conv", "ConvTranspose")
# Values of a linear weight that lies in the cache of a core as floats, too (512 KiB). Others go to
# `MatMulNBits`, which reads less memory, and makes floats of them at every run.
_SMALL = 2**17


def with_placeholders(module: nn.Module) -> nn.Module:
    """Gives 4-bit layers the form of 8-bit ones, which the exporter keeps; `rewrite` finds them by name.

    Dequantizing groups would be traced as arithmetic on constants and folded to float.
    """
    for name, layer in list(module.named_modules()):
        if isinstance(layer, QuantizedLayer) and layer.grouped:
            scale = layer.weight_scale[:, 0].contiguous()
            replace_module(module, name, QuantizedLayer("linear", layer.weight, scale, layer.bias))
    return module


def rewrite(model: ir.Model, spec: QuantSpec, prefix: str = "") -> None:
    """Brings every quantized layer of a graph into its final form, in place.

    Args:
        model: what `torch.onnx.export` gave for a module of `with_placeholders`.
        spec: layers that the graph does not read may be among its.
        prefix: of the spec's names before those of the traced module; initializers get the spec's names.

    Raises:
        ExportError: a layer of the graph is not where it should be.
    """
    graph = model.graph
    layers, tensors = spec.layers, spec.tensors
    if prefix:
        for value in list(graph.initializers.values()):
            old = value.name
            if old is not None and f"{prefix}{old}" in tensors:
                del graph.initializers[str(old)]
                value.name = f"{prefix}{old}"
                graph.register_initializer(value)
    nibbles = False
    for node in list(graph):
        if node.op_type != "DequantizeLinear" or (source := node.inputs[0]) is None:
            continue
        name = (source.name or "").removesuffix(".weight")
        if source.name not in graph.initializers or name not in layers:
            continue
        layer = layers[name]
        for consumer, _ in list(node.outputs[0].uses()):
            if layer.group:
                _to_nibbles(graph, consumer, name, layer, tensors)
                nibbles = True
            elif layer.kind == "linear":
                for product in _untranspose(consumer, node, name):
                    _integer_bias(graph, product, name, layer, tensors)
            elif is_pointwise(layer, tensors[f"{name}.weight"]):
                conv, values = to_pointwise(graph, consumer, node, name, tensors)
                _integer_bias(graph, conv, name, layer, values)
            else:
                _integer_bias(graph, consumer, name, layer, tensors)
        if layer.kind == "linear" and not layer.group:
            weight = np.ascontiguousarray(tensors[f"{name}.weight"].numpy().T)
            source.const_value = ir.tensor(weight, name=source.name)
            source.shape = ir.Shape(weight.shape)
            node.outputs[0].shape = ir.Shape(weight.shape)
            node.attributes["axis"] = ir.AttrInt64("axis", 1)
        elif layer.group:
            graph.remove(node, safe=True)
            del graph.initializers[f"{name}.weight"]
        if (
            layer.input_scale is None
            and not layer.group
            and (layer.kind != "linear" or tensors[f"{name}.weight"].numel() <= _SMALL)
        ):
            _cast_once(graph, node, name, tensors[f"{name}.weight_scale"])
    _shift_activations(graph)
    if nibbles:
        graph.opset_imports["com.microsoft"] = 1
    _drop_unused(graph)


def _untranspose(transpose: ir.Node, dequantize: ir.Node, name: str) -> list[ir.Node]:
    """Removes the Transpose behind a weight, and gives the products that read it."""
    if transpose.op_type != "Transpose":
        raise ExportError(f"{name}: want a Transpose behind its weight, found {transpose.op_type}")
    products = [product for product, _ in transpose.outputs[0].uses()]
    transpose.outputs[0].replace_all_uses_with(dequantize.outputs[0])
    assert transpose.graph is not None
    transpose.graph.remove(transpose, safe=True)
    return products


def _integer_bias(
    graph: ir.Graph, product: ir.Node, name: str, layer: Layer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Writes the bias of a product with static inputs as int32: at a convolution, or in the Add behind."""
    if f"{name}.bias" not in tensors or layer.input_scale is None:
        return
    if product.op_type in _CONVOLUTIONS:
        reader, place = product, 2
        if len(product.inputs) == place:  # adding nothing was optimised away
            product.resize_inputs(place + 1)
    else:
        found = [
            (node, place)
            for node, _ in product.outputs[0].uses()
            for place, value in enumerate(node.inputs)
            if value is not None and value.name == f"{name}.bias"
        ]
        if not found and not tensors[f"{name}.bias"].any():
            found = [(_add_behind(graph, product), 1)]  # adding nothing was optimised away
        if len(found) != 1:
            raise ExportError(
                f"{name}: want one Add of its bias behind {product.op_type}, found {len(found)}"
            )
        reader, place = found[0]
    written = next((n for n in graph if n.name == f"{name}.bias_dequantize"), None)
    if written is not None:  # a layer that runs more than once
        reader.replace_input_with(place, written.outputs[0])
        return
    scale = bias_scale(tensors[f"{name}.weight_scale"], layer.input_scale)
    steps = (tensors[f"{name}.bias"].numpy() / scale).round().astype(np.int32)
    inputs = [
        _initializer(graph, f"{name}.bias_int32", steps),
        _initializer(graph, f"{name}.bias_scale", scale),
    ]
    node = ir.node("DequantizeLinear", inputs, attributes={"axis": 0}, name=f"{name}.bias_dequantize")
    node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, ir.Shape(scale.shape)
    graph.insert_before(reader, node)
    reader.replace_input_with(place, node.outputs[0])


def _add_behind(graph: ir.Graph, product: ir.Node) -> ir.Node:
    """An addition behind a product, which integer kernels are made of; its second input is yet to be set."""
    value = product.outputs[0]
    add = ir.node("Add", [value, value])
    add.outputs[0].type, add.outputs[0].shape = value.type, value.shape
    readers = [(node, place) for node, place in value.uses() if node is not add]
    graph.insert_after(product, add)
    for node, place in readers:
        node.replace_input_with(place, add.outputs[0])
    return add


def bias_scale(weight_scale: torch.Tensor, input_scale: float) -> NDArray[np.float32]:
    """What one step of an int32 bias is worth, float32 [N]: s_x s_w."""
    scale: NDArray[np.float32] = (weight_scale.double() * input_scale).float().numpy()
    return scale


def _to_nibbles(
    graph: ir.Graph, transpose: ir.Node, name: str, layer: Layer, tensors: Mapping[str, torch.Tensor]
) -> None:
    if transpose.op_type != "Transpose":
        raise ExportError(f"{name}: want a Transpose behind its weight, found {transpose.op_type}")
    weight = tensors[f"{name}.weight"].numpy()
    rows, columns = weight.shape
    packed = pack_nibbles(weight).reshape(rows, columns // layer.group, layer.group // 2)
    scale = tensors[f"{name}.weight_scale"].numpy()
    for product, _ in list(transpose.outputs[0].uses()):
        if product.op_type != "MatMul":
            raise ExportError(f"{name}: want a MatMul of its weight, found {product.op_type}")
        inputs = [
            product.inputs[0],
            _initializer(graph, f"{name}.weight_int4", packed),
            _initializer(graph, f"{name}.weight_scale_int4", np.ascontiguousarray(scale)),
        ]
        attributes = {"K": columns, "N": rows, "bits": 4, "block_size": layer.group}
        node = ir.node(
            "MatMulNBits", inputs, attributes=attributes, domain="com.microsoft", name=product.name
        )
        old = product.outputs[0]
        node.outputs[0].type, node.outputs[0].shape = old.type, old.shape
        graph.insert_before(product, node)
        old.replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
        node.outputs[0].name = old.name
        graph.remove(product, safe=True)
    graph.remove(transpose, safe=True)


def _cast_once(graph: ir.Graph, dequantize: ir.Node, name: str, scale: torch.Tensor) -> None:
    """Writes a weight that meets float activations as Cast and Mul: the same floats as of DequantizeLinear.

    ONNX Runtime folds them when a session opens. It keeps DequantizeLinear for integer kernels: in front of a
    convolution with float activations, which has none, it would run each time.
    """
    source, old = dequantize.inputs[0], dequantize.outputs[0]
    assert source is not None
    sides = [1] * len(old.shape or ())
    sides[dequantize.attributes["axis"].as_int()] = -1
    cast = ir.node("Cast", [source], attributes={"to": ir.DataType.FLOAT}, name=f"{name}.weight_cast")
    steps = _initializer(graph, f"{name}.weight_scale_rows", scale.reshape(sides).numpy())
    mul = ir.node("Mul", [cast.outputs[0], steps], name=f"{name}.weight_scaled")
    for value in (cast.outputs[0], mul.outputs[0]):
        value.type, value.shape = old.type, old.shape
    graph.insert_before(dequantize, [cast, mul])
    old.replace_all_uses_with(mul.outputs[0])
    graph.remove(dequantize, safe=True)


def pack_nibbles(weight: NDArray[np.int8]) -> NDArray[np.uint8]:
    """int8 [N, K] of -8..7 -> uint8 [N, K / 2] of value + 8, the first of two in the low half."""
    shifted = (weight.astype(np.int16) + 8).astype(np.uint8)
    return (shifted[:, 0::2] | (shifted[:, 1::2] << 4)).astype(np.uint8)


def unpack_nibbles(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """The inverse of `pack_nibbles`."""
    values = np.stack((packed & 15, packed >> 4), axis=-1).reshape(len(packed), -1)
    return (values.astype(np.int16) - 8).astype(np.int8)


def _initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    if name not in graph.initializers:
        tensor = ir.tensor(array, name=name)
        graph.register_initializer(
            ir.Value(
                name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
        )
    return graph.initializers[name]


def _shift_activations(graph: ir.Graph) -> None:
    """Stores int8 activations as uint8: the same steps, 128 higher, and so is the zero point.

    ONNX Runtime's kernels on x64 want it so. It would shift by itself, but not where two layers read one
    tensor: those then run in float.
    """
    for node in graph:
        if node.op_type == "QuantizeLinear":
            given = _constant(node.inputs[2])
            point = 128 + (0 if given is None else int(given))
            zero = _initializer(graph, f"activation_zero_point_{point}", np.array(point, np.uint8))
            node.replace_input_with(2, zero)
            node.outputs[0].dtype = ir.DataType.UINT8
            for reader, _ in node.outputs[0].uses():
                reader.replace_input_with(2, zero)


def _drop_unused(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def read_integers(model: ir.Model) -> Iterator[tuple[str, NDArray[np.int8], NDArray[np.float32]]]:
    """The integer weights of a graph as they stand in its file: layer name, integers, scales.

    Returns:
        In the layout of the spec: int8 [N, K] or the convolution's own, float32 [N] or [N, K / group].
    """
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            packed, scale = _constant(node.inputs[1]), _constant(node.inputs[2])
            name = (node.inputs[1].name or "") if node.inputs[1] is not None else ""
            if packed is None or scale is None or not name.endswith(".weight_int4"):
                continue
            yield name.removesuffix(".weight_int4"), unpack_nibbles(packed.reshape(len(packed), -1)), scale
        elif node.op_type == "DequantizeLinear":
            integers, scale = _constant(node.inputs[0]), _constant(node.inputs[1])
            name = (node.inputs[0].name or "") if node.inputs[0] is not None else ""
            if integers is None or scale is None or not name.endswith(".weight"):
                continue
            yield name.removesuffix(".weight"), integers.T if integers.ndim == 2 else integers, scale
        elif node.op_type == "Cast" and (source := node.inputs[0]) is not None:
            integers, name = _constant(source), source.name or ""
            if integers is not None and integers.dtype == np.int8 and name.endswith(".weight"):
                (product,) = node.outputs[0].consumers()
                scale = _constant(product.inputs[1])
                if scale is None:
                    raise ExportError(f"{name}: want its scales behind the cast, found {product.op_type}")
                integers = integers.T if integers.ndim == 2 else integers
                yield name.removesuffix(".weight"), integers, scale.reshape(-1)
        elif node.op_type == "Gather" and (source := node.inputs[0]) is not None:
            table = _constant(source)
            if table is not None and table.dtype == np.int8:
                yield (source.name or "").removesuffix(".weight"), table, _scales_of_rows(node)


def _scales_of_rows(gather: ir.Node) -> NDArray[np.float32]:
    """What rows of a table are multiplied with, once they are floats: gathered by the same ids, [N]."""
    (cast,) = gather.outputs[0].consumers()
    (product,) = cast.outputs[0].consumers()
    for value in product.inputs:
        beside = None if value is None else value.producer()
        if beside is None or beside.op_type != "Gather" or beside.inputs[1] is not gather.inputs[1]:
            continue
        source = beside.inputs[0]
        maker = None if source is None else source.producer()
        scale = _constant(source if maker is None else maker.inputs[0])  # the exporter folds small tables
        if scale is not None:
            return scale.reshape(-1)
    raise ExportError(f"{gather.name}: want a scale for each row behind the rows of a table")


def _constant(value: ir.Value | None) -> NDArray[Any] | None:
    """What an initializer holds, None for anything else."""
    if value is None or value.const_value is None:
        return None
    array: NDArray[Any] = value.const_value.numpy()
    return array
