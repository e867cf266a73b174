"""What an OpenVINO IR holds of a `QuantSpec`: integers, scales, ranges; and which kernels run them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from sam3i_edge.errors import ExportError
from sam3i_edge.export.onnx.deconvolutions import stored
from sam3i_edge.export.openvino.rewrites import BEHIND
from sam3i_edge.quantize.spec import QuantSpec
from sam3i_edge.runtimes.ov import shared_core

_CONVOLUTIONS = (
    "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData",
)  # fmt: skip
_INTEGERS = ("i8", "i4", "u4")
# What passes activations on as they are.
_PASSES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze")


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A quantized layer as it stands in an IR file.

    Attributes:
        name: of the module.
        integers: int8 in the layout of the spec: [N, K], or the convolution's own.
        scale: float32 [N], or [N, K / group].
        inputs: least and greatest value of its static int8 activations, or None where they are float.
    """

    name: str
    integers: NDArray[np.int8]
    scale: NDArray[np.float32]
    inputs: tuple[float, float] | None


def read_integers(path: Path) -> Iterator[StoredLayer]:
    """Reads every use of a quantized weight in an IR file.

    Raises:
        ExportError: a weight is not used as integers, scale, product.
    """
    for node in shared_core().read_model(path).get_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() in _INTEGERS:
            name, dot, kind = node.get_friendly_name().rpartition(".")
            if dot and kind in ("weight", "weight_int4"):
                yield from _uses(name, node, _value(node).astype(np.int16), None)


def check_integers(spec: QuantSpec, graphs: Mapping[str, Path]) -> int:
    """Compares integers, scales and static activations in IR files with the spec's.

    Returns:
        The number of equal layers.

    Raises:
        ExportError: a layer differs, or is in no graph.
    """
    equal = set()
    for path in graphs.values():
        for found in read_integers(path):
            name, layer = found.name, spec.layers.get(found.name)
            if layer is None:
                raise ExportError(f"{path.name}: {name} is quantized there and float in the spec")
            want, steps = stored(spec, name)
            if not np.array_equal(found.integers, want):
                differ = (
                    f"{np.sum(found.integers != want)} integers"
                    if found.integers.shape == want.shape
                    else f"the shapes {found.integers.shape} and {want.shape}"
                )
                raise ExportError(f"{path.name}: {differ} of {name} differ")
            if not np.array_equal(found.scale, steps):
                raise ExportError(f"{path.name}: the scales of {name} differ")
            step, zero = layer.input_scale, layer.input_zero
            inputs = None if step is None else _range(step, zero)
            if found.inputs != inputs:
                raise ExportError(
                    f"{path.name}: the activations of {name} lie in {found.inputs}, want {inputs}"
                )
            equal.add(name)
    missing = sorted(spec.layers.keys() - equal)
    if missing:
        raise ExportError(f"{len(missing)} quantized layers are in no graph, the first is {missing[0]}")
    return len(equal)


def _range(step: float, zero: int) -> tuple[float, float]:
    """What int8 activations with a zero point can hold."""
    return float(np.float32((-128 - zero) * step)), float(np.float32((127 - zero) * step))


def integer_work(path: Path) -> tuple[int, int]:
    """Multiply-adds of products with weights: in integer kernels of OpenVINO's CPU device, and all of them.

    Compiles the graph to see what the device makes of it.
    """
    core = shared_core()
    model = core.read_model(path)
    work = _linear_work(model)
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    )
    in_integers: set[str] = set()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        # "runtimePrecision" will not do: it is i8 or u4 also where weights of so many bits meet float values.
        if str(info["primitiveType"].astype(str)).lower().endswith("_i8"):
            fused = str(info["originalLayersNames"].astype(str)).split(",")
            in_integers.update(
                name.removesuffix("/DequantizationMultiply").removesuffix(BEHIND) for name in fused
            )
    return sum(n for name, n in work.items() if name in in_integers), sum(work.values())


def _uses(name: str, node: Any, integers: NDArray[Any], scale: NDArray[Any] | None) -> Iterator[StoredLayer]:
    """Follows a weight from `node` to its products: convert, perhaps a zero point, scale, reshape.

    A table is gathered, converted and multiplied by scales that are gathered too.
    """
    for port in node.output(0).get_target_inputs():
        reader = port.get_node()
        kind = reader.get_type_name()
        if kind == "MatMul" or kind in _CONVOLUTIONS:
            if scale is None or port.get_index() != 1:
                raise ExportError(f"{name}: want a scale between its weight and the second input of {kind}")
            yield _stored(name, reader, integers, scale)
        elif kind in ("Convert", "Gather") or (kind == "Reshape" and scale is not None):
            yield from _uses(name, reader, integers, scale)
        elif kind == "Subtract" and scale is None:
            zero = _value(reader.input_value(1).get_node())
            if not np.array_equal(zero, np.rint(zero)):
                raise ExportError(f"{name}: its zero points are no integers")
            yield from _uses(name, reader, integers - zero.astype(np.int16), None)
        elif kind == "Multiply" and scale is None:
            by = reader.input_value(1).get_node()
            if by.get_type_name() == "Gather":  # the rows of a table meet their scales
                steps = _value(by.input_value(0).get_node()).reshape(-1).astype(np.float32)
                yield StoredLayer(name, integers.astype(np.int8), steps, None)
            else:
                yield from _uses(name, reader, integers, _value(by))
        else:
            raise ExportError(f"{name}: want convert, scale and product behind its weight, found {kind}")


def _stored(name: str, product: Any, integers: NDArray[Any], scale: NDArray[Any]) -> StoredLayer:
    """Brings what lies before a product into the layout of the spec."""
    if integers.ndim == 3:  # groups
        rows, groups = integers.shape[:2]
        integers, scale = integers.reshape(rows, -1), scale.reshape(rows, groups)
    else:
        if product.get_type_name() == "MatMul" and not product.get_attributes()["transpose_b"]:
            integers = integers.T
        scale = scale.reshape(-1)
    return StoredLayer(name, integers.astype(np.int8), scale.astype(np.float32), _static_range(product))


def _static_range(product: Any) -> tuple[float, float] | None:
    node = product.input_value(0).get_node()
    while node.get_type_name() in _PASSES:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "FakeQuantize":
        return None
    bounds = [_value(node.input_value(n).get_node()).reshape(-1) for n in range(1, 5)]
    if any(len(bound) != 1 for bound in bounds) or bounds[:2] != bounds[2:]:
        raise ExportError(f"{product.get_friendly_name()}: its activations have more than one range")
    if node.get_attributes()["levels"] != 256:
        raise ExportError(f"{product.get_friendly_name()}: its activations have other than 256 steps")
    return float(bounds[0][0]), float(bounds[1][0])


def _value(node: Any) -> NDArray[Any]:
    """What a constant holds, through conversions and reshapes."""
    kind = node.get_type_name()
    if kind == "Constant":
        type_name = node.get_element_type().get_type_name()
        if type_name in ("i4", "u4"):
            # The first of two lies in the low half, unlike what `openvino.helpers.unpack_data` takes.
            packed = np.array(node.data).reshape(-1)
            halves = np.stack((packed & 15, packed >> 4), axis=-1).reshape(-1).astype(np.int8)
            if type_name == "i4":
                halves = np.where(halves > 7, halves - 16, halves).astype(np.int8)
            return halves[: prod(node.shape)].reshape(tuple(node.shape))
        return np.array(node.data)
    if kind == "Convert":
        converted: NDArray[Any] = _value(node.input_value(0).get_node()).astype(
            node.get_element_type().to_dtype()
        )
        return converted
    if kind == "Reshape":
        return _value(node.input_value(0).get_node()).reshape(tuple(node.shape))
    raise ExportError(f"{node.get_friendly_name()}: want a constant, found {kind}")


def _linear_work(model: openvino.Model) -> dict[str, int]:
    """Multiply-adds of every product with a weight, by the name of the product; shapes are static."""
    work: dict[str, int] = {}
    dynamic: dict[str, bool] = {}
    for node in model.get_ordered_ops():
        sources = [node.input_value(n).get_node().get_friendly_name() for n in range(node.get_input_size())]
        name, kind = node.get_friendly_name(), node.get_type_name()
        # `level` only chooses weights.
        dynamic[name] = name != "level" if kind == "Parameter" else any(dynamic[s] for s in sources)
        if kind not in ("MatMul", *_CONVOLUTIONS) or not dynamic[sources[0]] or dynamic[sources[1]]:
            continue
        weight = prod(node.input(1).get_shape())
        taken, given = prod(node.input(0).get_shape()), prod(node.output(0).get_shape())
        if kind == "MatMul":
            axis = -2 if node.get_attributes()["transpose_a"] else -1
            work[name] = given * node.input(0).get_shape()[axis]
        elif kind.endswith("BackpropData"):
            work[name] = taken * weight // node.input(0).get_shape()[1]
        else:
            work[name] = given * weight // node.output(0).get_shape()[1]
    return work
