"""The operators of ML programs that our graphs use, on float32 tensors.

Each takes the inputs of one operation and computes what coremltools' documentation of the operator says
(`coremltools.converters.mil.mil.ops.defs`), with float32 inside; `mil_reference` rounds what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from sam3i_edge.errors import ExportError

Result = torch.Tensor | tuple[torch.Tensor, ...]


class Operands:
    """The inputs of one operation.

    Args:
        op: a coremltools `Operation`.
        values: variable name -> its value.
    """

    def __init__(self, op: Any, values: Mapping[str, torch.Tensor]) -> None:
        self.op, self._values = op, values

    def __getitem__(self, name: str) -> torch.Tensor:
        value = self.get(name)
        if value is None:
            raise self.error(f"lacks its input {name!r}")
        return value

    def get(self, name: str) -> torch.Tensor | None:
        """A tensor, or None where the input is left out."""
        var = self.op.inputs.get(name)
        return None if var is None else self._values[var.name]

    def many(self, name: str) -> list[torch.Tensor]:
        """The tensors of a list input."""
        return [self._values[var.name] for var in self.op.inputs[name]]

    def constant(self, name: str, default: Any = None) -> Any:
        """A parameter: number, string, list of numbers, or `default` where it is left out."""
        var = self.op.inputs.get(name)
        if var is None or var.val is None:
            return default
        return var.val.tolist() if isinstance(var.val, (np.ndarray, np.generic)) else var.val

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first output."""
        return tuple(self.op.outputs[0].shape)

    def error(self, what: str) -> ExportError:
        """Names the operation."""
        return ExportError(f"operation {self.op.name!r} ({self.op.op_type}) {what}")


def _binary(function: Callable[[Any, Any], torch.Tensor]) -> Callable[[Operands], torch.Tensor]:
    return lambda o: function(o["x"], o["y"])


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Operands], torch.Tensor]:
    return lambda o: function(o["x"])


def _reduce(function: Callable[..., torch.Tensor]) -> Callable[[Operands], torch.Tensor]:
    def reduce(o: Operands) -> torch.Tensor:
        x = o["x"]
        axes = o.constant("axes", list(range(x.ndim)))
        return function(x, dim=axes, keepdim=bool(o.constant("keep_dims", False)))

    return reduce


def _linear(o: Operands) -> torch.Tensor:
    return F.linear(o["x"], o["weight"], o.get("bias"))


def _matmul(o: Operands) -> torch.Tensor:
    x, y = o["x"], o["y"]
    if o.constant("transpose_x", False):
        x = x.transpose(-2, -1)
    return torch.matmul(x, y.transpose(-2, -1) if o.constant("transpose_y", False) else y)


def _padding(o: Operands) -> list[int]:
    """Of a convolution, for `F.pad`: left, right, top, bottom."""
    kind = o.constant("pad_type", "valid")
    if kind == "valid":
        return [0, 0, 0, 0]
    if kind != "custom":
        raise o.error(f"pads as {kind!r}, the reference knows 'valid' and 'custom'")
    top, bottom, left, right = o.constant("pad")
    return [left, right, top, bottom]


def _conv(o: Operands) -> torch.Tensor:
    x, (left, right, top, bottom) = o["x"], _padding(o)
    padding = (0, 0)
    if left == right and top == bottom:
        padding = (top, left)
    else:
        x = F.pad(x, [left, right, top, bottom])
    return F.conv2d(
        x,
        o["weight"],
        o.get("bias"),
        o.constant("strides", [1, 1]),
        padding,
        o.constant("dilations", [1, 1]),
        o.constant("groups", 1),
    )


def _conv_transpose(o: Operands) -> torch.Tensor:
    left, right, top, bottom = _padding(o)
    y = F.conv_transpose2d(
        o["x"],
        o["weight"],
        o.get("bias"),
        o.constant("strides", [1, 1]),
        groups=o.constant("groups", 1),
        dilation=o.constant("dilations", [1, 1]),
    )
    return y[..., top : y.shape[-2] - bottom, left : y.shape[-1] - right]


def _gelu(o: Operands) -> torch.Tensor:
    mode, x = o.constant("mode", "EXACT"), o["x"]
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    raise o.error(f"has mode {mode!r}, the reference knows EXACT and TANH_APPROXIMATION")


def _layer_norm(o: Operands) -> torch.Tensor:
    x = o["x"]
    axes = [axis % x.ndim for axis in o.constant("axes", [-1])]
    if axes != list(range(x.ndim - len(axes), x.ndim)):
        raise o.error(f"normalises axes {axes} of {x.ndim}, the reference knows the last ones")
    shape = x.shape[-len(axes) :]
    return F.layer_norm(x, shape, o.get("gamma"), o.get("beta"), o.constant("epsilon", 1e-5))


def _batch_norm(o: Operands) -> torch.Tensor:
    return F.batch_norm(
        o["x"],
        o["mean"],
        o["variance"],
        o.get("gamma"),
        o.get("beta"),
        training=False,
        eps=o.constant("epsilon", 1e-5),
    )


def _slice_by_index(o: Operands) -> torch.Tensor:
    x = o["x"]
    every = [False] * x.ndim
    begin, end = o.constant("begin"), o.constant("end")
    stride = o.constant("stride", [1] * x.ndim)
    begin_mask, end_mask, squeeze_mask = (
        o.constant(name, every) for name in ("begin_mask", "end_mask", "squeeze_mask")
    )
    index: list[slice | int] = []
    for axis in range(x.ndim):
        if squeeze_mask[axis]:
            index.append(int(begin[axis]))
            continue
        if stride[axis] < 1:
            raise o.error(f"has the stride {stride[axis]}, the reference knows positive ones")
        first = None if begin_mask[axis] else begin[axis]
        index.append(slice(first, None if end_mask[axis] else end[axis], stride[axis]))
    return x[tuple(index)]


def _gather(o: Operands) -> torch.Tensor:
    if o.constant("batch_dims", 0):
        raise o.error("has batch dimensions, the reference knows none")
    x, indices = o["x"], o["indices"].long()
    axis = o.constant("axis", 0) % x.ndim
    taken = x.index_select(axis, torch.where(indices < 0, indices + x.shape[axis], indices).flatten())
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_along_axis(o: Operands) -> torch.Tensor:
    x, indices = o["x"], o["indices"].long()
    axis = o.constant("axis", 0)
    return torch.take_along_dim(x, torch.where(indices < 0, indices + x.shape[axis], indices), axis)


def _topk(o: Operands) -> Result:
    values, indices = torch.topk(
        o["x"], o.constant("k", 1), o.constant("axis", -1), largest=not o.constant("ascending", False)
    )
    return (values, indices) if o.constant("return_indices", True) else values


def _split(o: Operands) -> Result:
    axis = o.constant("axis")
    return torch.split(o["x"], [var.shape[axis] for var in o.op.outputs], axis)


def _concat(o: Operands) -> torch.Tensor:
    if o.constant("interleave", False):
        raise o.error("interleaves, the reference does not know how")
    return torch.cat(o.many("values"), o.constant("axis"))


def _pad(o: Operands) -> torch.Tensor:
    if o.constant("mode", "constant") != "constant":
        raise o.error(f"pads in mode {o.constant('mode')!r}, the reference knows 'constant'")
    ends = o.constant("pad")
    # Core ML counts axes from the first to the last, `F.pad` from the last to the first.
    pairs = [ends[i : i + 2] for i in range(0, len(ends), 2)]
    return F.pad(o["x"], [n for pair in reversed(pairs) for n in pair], value=o.constant("constant_val", 0))


def _upsample_nearest(o: Operands) -> torch.Tensor:
    height, width = (o.constant(f"scale_factor_{side}", 1) for side in ("height", "width"))
    if height != int(height) or width != int(width):
        raise o.error(f"scales by {height} x {width}, the reference knows whole factors")
    return o["x"].repeat_interleave(int(height), -2).repeat_interleave(int(width), -1)


def _upsample_bilinear(o: Operands) -> torch.Tensor:
    corners = bool(o.constant("align_corners", True))
    return F.interpolate(o["x"], size=o.shape[-2:], mode="bilinear", align_corners=corners)


_INTEGERS = {"int8": torch.int8, "uint8": torch.uint8, "int16": torch.int16, "uint16": torch.uint16}


def _cast(o: Operands) -> torch.Tensor:
    x, dtype = o["x"], o.constant("dtype")
    if dtype in ("fp16", "fp32"):
        return x.float()
    if dtype == "bool":
        return x != 0
    if dtype == "int32":
        return x.to(torch.int32)
    if dtype in _INTEGERS:
        info = torch.iinfo(_INTEGERS[dtype])
        whole = x.to(torch.int32)
        if whole.numel() and not info.min <= int(whole.min()) <= int(whole.max()) <= info.max:
            raise o.error(f"casts values {int(whole.min())} to {int(whole.max())} to {dtype}")
        return whole
    raise o.error(f"casts to {dtype!r}, which the reference does not know")


def _along(vector: torch.Tensor, rank: int, axis: int) -> torch.Tensor:
    """A vector as a tensor of `rank` dimensions that varies along `axis`; a scalar stays one."""
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape) if vector.ndim else vector


def _affine(o: Operands, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
    axis, zero = o.constant("axis", 0), o.get("zero_point")
    scale = _along(o["scale"], data.ndim, axis)
    return scale, 0.0 if zero is None else _along(zero, data.ndim, axis).float()


def _quantize(o: Operands) -> torch.Tensor:
    x = o["input"]
    dtype = _INTEGERS[o.constant("output_dtype")]
    scale, zero = _affine(o, x)
    info = torch.iinfo(dtype)
    return (torch.round(x / scale) + zero).clamp(info.min, info.max).to(dtype)


def _dequantize(o: Operands) -> torch.Tensor:
    scale, zero = _affine(o, o["input"])
    return (o["input"].float() - zero) * scale


def _affine_dequantize(o: Operands) -> torch.Tensor:
    data = o["quantized_data"]
    scale, zero = _affine(o, data)
    return (data.float() - zero) * scale


def _blockwise_shift_scale(o: Operands) -> torch.Tensor:
    data, scale, offset = o["data"].float(), o["scale"], o.get("offset")
    for axis, size in enumerate(data.shape):
        scale = scale.repeat_interleave(size // scale.shape[axis], axis)
        if offset is not None:
            offset = offset.repeat_interleave(size // offset.shape[axis], axis)
    return (data if offset is None else data - offset.float()) * scale


OPERATORS: dict[str, Callable[[Operands], Result]] = {
    "abs": _unary(torch.abs),
    "add": _binary(torch.add),
    "batch_norm": _batch_norm,
    "cast": _cast,
    "ceil": _unary(torch.ceil),
    "clip": lambda o: o["x"].clamp(o.constant("alpha"), o.constant("beta")),
    "concat": _concat,
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "cos": _unary(torch.cos),
    "dequantize": _dequantize,
    "equal": _binary(torch.eq),
    "expand_dims": lambda o: o["x"].reshape(o.shape),
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gelu": _gelu,
    "greater": _binary(torch.gt),
    "greater_equal": _binary(torch.ge),
    "identity": lambda o: o["x"],
    "layer_norm": _layer_norm,
    "less": _binary(torch.lt),
    "less_equal": _binary(torch.le),
    "linear": _linear,
    "log": lambda o: torch.log(o["x"] + o.constant("epsilon", 1e-45)),
    "logical_and": _binary(torch.logical_and),
    "logical_not": _unary(torch.logical_not),
    "matmul": _matmul,
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "mul": _binary(torch.mul),
    "not_equal": _binary(torch.ne),
    "pad": _pad,
    "quantize": _quantize,
    "real_div": _binary(torch.div),
    "reduce_mean": _reduce(torch.mean),
    "reduce_sum": _reduce(torch.sum),
    "relu": _unary(torch.relu),
    "relu6": lambda o: o["x"].clamp(0, 6),
    "reshape": lambda o: o["x"].reshape(o.shape),
    "select": lambda o: torch.where(o["cond"], o["a"], o["b"]),
    "sigmoid": _unary(torch.sigmoid),
    "sigmoid_hard": lambda o: (o["x"] * o.constant("alpha", 0.2) + o.constant("beta", 0.5)).clamp(0, 1),
    "sign": _unary(torch.sign),
    "sin": _unary(torch.sin),
    "slice_by_index": _slice_by_index,
    "softmax": lambda o: torch.softmax(o["x"], o.constant("axis", -1)),
    "split": _split,
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "squeeze": lambda o: o["x"].reshape(o.shape),
    "stack": lambda o: torch.stack(o.many("values"), o.constant("axis")),
    "sub": _binary(torch.sub),
    "thresholded_relu": lambda o: torch.where(o["x"] >= o.constant("alpha"), o["x"], 0.0),
    "tile": lambda o: o["x"].tile(o.constant("reps")),
    "topk": _topk,
    "transpose": lambda o: o["x"].permute(o.constant("perm")),
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
"""Name of an operator -> what it computes."""
