"""Transposed convolutions whose kernel is their stride, as pointwise convolutions.

Each input pixel then makes a tile of its own, so the layer is a pointwise convolution to k * k times the
channels, which are laid out as tiles behind. ONNX Runtime 1.31 has integer kernels for that and none for a
transposed convolution. Integers and scales stay those of the `QuantSpec`, in another order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from sam3i_edge.errors import ExportError
from sam3i_edge.quantize.spec import Layer, QuantSpec


def is_pointwise(layer: Layer, weight: torch.Tensor) -> bool:
    """Whether a layer is written so: transposed, static in and out, its kernel its stride."""
    options = layer.options
    return (
        layer.kind == "conv_transpose2d"
        and layer.input_scale is not None
        and layer.output_scale is not None
        and list(weight.shape[2:]) == list(options.get("stride", ()))
        and not any(options.get("padding", (0,)))
        and options.get("groups", 1) == 1
        and set(options.get("dilation", (1,))) == {1}
    )


def stored(spec: QuantSpec, name: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A layer's integers and scales in the order in which ONNX and OpenVINO files hold them.

    Returns:
        int8 in the layer's own layout, or [N k k, K, 1, 1]; float32 scales of its rows.
    """
    weight, scale = spec.tensors[f"{name}.weight"], spec.tensors[f"{name}.weight_scale"]
    if is_pointwise(spec.layers[name], weight):
        weight, scale = _rows(weight), scale.repeat_interleave(weight[0, 0].numel())
    return weight.numpy(), scale.numpy()


def _rows(weight: torch.Tensor) -> torch.Tensor:
    """[K, N, k, k] -> [N k k, K, 1, 1]."""
    return weight.permute(1, 2, 3, 0).reshape(-1, weight.shape[0], 1, 1).contiguous()


def to_pointwise(
    graph: ir.Graph, node: ir.Node, dequantize: ir.Node, name: str, tensors: Mapping[str, torch.Tensor]
) -> tuple[ir.Node, dict[str, torch.Tensor]]:
    """Replaces a ConvTranspose that reads a dequantized weight.

    Args:
        graph: that holds both.
        node: the ConvTranspose; its output must be quantized and dequantized again.
        dequantize: of its weight.
        name: of the layer.
        tensors: of the spec.

    Returns:
        The convolution, without its bias, and the layer's scale and bias in its order.

    Raises:
        ExportError: the output is not quantized.
    """
    weight = tensors[f"{name}.weight"]
    side = weight.shape[2]
    values = {
        f"{name}.{part}": tensors[f"{name}.{part}"].repeat_interleave(side * side)
        for part in ("weight_scale", "bias")
        if f"{name}.{part}" in tensors
    }
    integers = dequantize.inputs[0]
    quantize = next(iter(node.outputs[0].consumers()), None)
    restore = None if quantize is None else next(iter(quantize.outputs[0].consumers()), None)
    if integers is None or restore is None or restore.op_type != "DequantizeLinear":
        raise ExportError(f"{name}: want quantized outputs behind {node.op_type}")
    rows = _rows(weight).numpy()
    integers.const_value = ir.tensor(rows, name=integers.name)
    integers.shape = dequantize.outputs[0].shape = ir.Shape(rows.shape)
    # A value of its own: the exporter writes scales that are equal once, for all layers that have them.
    array = values[f"{name}.weight_scale"].numpy()
    steps = ir.tensor(array, name=f"{name}.weight_scale_rows")
    scale = ir.Value(
        name=steps.name, shape=ir.Shape(array.shape), type=ir.TensorType(steps.dtype), const_value=steps
    )
    graph.register_initializer(scale)
    dequantize.replace_input_with(1, scale)
    dequantize.attributes["axis"] = ir.AttrInt64("axis", 0)
    dequantize.replace_input_with(2, None)  # zero points, all 0
    old = node.outputs[0]
    conv = ir.node("Conv", [node.inputs[0], dequantize.outputs[0], None], name=node.name)
    conv.outputs[0].type = old.type
    graph.insert_before(node, conv)
    whole = restore.outputs[0].shape
    old.replace_all_uses_with(conv.outputs[0])
    graph.remove(node, safe=True)
    tiles = ir.node(
        "DepthToSpace",
        [restore.outputs[0]],
        attributes={"blocksize": side, "mode": "CRD"},
        name=f"{name}.tiles",
    )
    tiles.outputs[0].type, tiles.outputs[0].shape = restore.outputs[0].type, whole
    readers = [(reader, place) for reader, place in restore.outputs[0].uses() if reader is not tiles]
    graph.insert_after(restore, tiles)
    for reader, place in readers:
        reader.replace_input_with(place, tiles.outputs[0])
    batch, channels, height, width = (size for size in whole or () if isinstance(size, int))
    shape = ir.Shape((batch, channels * side * side, height // side, width // side))
    for value in (conv.outputs[0], conv.outputs[0].consumers()[0].outputs[0], restore.outputs[0]):
        value.shape = shape
    return conv, values
