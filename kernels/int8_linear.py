"""Linear layer of 8-bit integers: y = act(s_x s_w (q_x q_w^T + q_b)) + residual, forward only.

q_x = clamp(round(x / s_x), -128, 127) with one static scale s_x, q_w int8 with a scale s_w per output
channel, q_b = round(b / (s_x s_w)) an int32. Rounding is half to even, and x / s_x is x times the float32
nearest to 1 / s_x, as torch.ops.quantized_decomposed computes it. Sums are exact: both implementations give
the same integers.

Source: Jacob et al. 2018 (arXiv:1712.05877), section 2.2, with symmetric scales.

The kernel quantizes as it loads. 1 launch reads M K e + N K + 8 N bytes, e bytes a number of
x, and x once more for each further 64 or 128 output channels, from the cache; it writes M N e, and with a
residual reads M N e more. Separate operators would write and read q_x and the int32 sums: 2 M K + 8 M N
bytes more. Deterministic.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch.nn import functional as F

from sam3i_edge.kernels._dispatch import Implementation, capability, check, launch, tile_of, use_triton
from sam3i_edge.kernels._triton import AotCase, cast, dot, jit, tl

Activation = Literal["gelu", "relu"]


def int8_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    input_scale: float,
    activation: Activation | None = None,
    residual: torch.Tensor | None = None,
    implementation: Implementation = "auto",
) -> torch.Tensor:
    """The linear layer of a QuantSpec, with what comes after it.

    Args:
        x: [..., K] float32, float16 or bfloat16, finite.
        weight: [N, K] int8.
        weight_scale: [N] float32, above 0.
        bias: [N] float32, below 2^30 s_x s_w in magnitude; or None.
        input_scale: s_x, above 0.
        activation: exact GELU, ReLU or none.
        residual: [..., N] in the dtype of `x`, added last.
        implementation: "auto" for the kernel on a GPU and the reference elsewhere, or one of the two by name.

    Returns:
        [..., N] in the dtype of `x`.

    Raises:
        ValueError: shapes, dtypes or devices disagree, a scale is not positive, or the kernel was asked for
            and cannot run.
        RuntimeError: a gradient is wanted.
    """
    rows, other = _checked("int8_linear", x, weight, weight_scale, bias, residual, activation)
    _check_scale(input_scale)
    if use_triton("int8_linear", {"x": rows, "weight": weight}, implementation):
        out = int8_linear_op(rows, weight, weight_scale, bias, input_scale, activation, other, x.dtype)
    else:
        out = int8_linear_reference(rows, weight, weight_scale, bias, input_scale, activation, other)
    return out.view(*x.shape[:-1], weight.shape[0])


def int8_linear_integers(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    input_scale: float,
    implementation: Implementation = "auto",
) -> torch.Tensor:
    """The exact sums q_x q_w^T + q_b of `int8_linear`, int32 [..., N]; arguments and errors as there."""
    rows, _ = _checked("int8_linear_integers", x, weight, weight_scale, bias, None, None)
    _check_scale(input_scale)
    if use_triton("int8_linear_integers", {"x": rows, "weight": weight}, implementation):
        out = int8_linear_op(rows, weight, weight_scale, bias, input_scale, None, None, torch.int32)
    else:
        out = _integers_reference(rows, weight, weight_scale, bias, input_scale)
    return out.view(*x.shape[:-1], weight.shape[0])


def int8_linear_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    input_scale: float,
    activation: Activation | None = None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition of `int8_linear`, for x [M, K]."""
    sums = _integers_reference(x, weight, weight_scale, bias, input_scale)
    return _finish(sums.float() * (weight_scale * input_scale), activation, residual, x.dtype)


def _integers_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    input_scale: float,
) -> torch.Tensor:
    sums = _products(x, 1.0 / input_scale, weight)
    if bias is not None:
        sums += torch.round(bias / (weight_scale * input_scale)).to(torch.int32)
    return sums


def _products(x: torch.Tensor, inverse_scale: float, weight: torch.Tensor) -> torch.Tensor:
    """q_x q_w^T as int32; float64 holds such sums exactly, and every device multiplies it."""
    integers = torch.clamp(torch.round(x.float() * inverse_scale), -128, 127)
    return F.linear(integers.double(), weight.double()).to(torch.int32)


def _finish(
    y: torch.Tensor, activation: Activation | None, residual: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    if activation is not None:
        y = F.gelu(y) if activation == "gelu" else F.relu(y)
    return (y if residual is None else y + residual.float()).to(dtype)


def _checked(
    name: str,
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    activation: str | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Checks what was given, and gives x [M, K] and the residual [M, N]."""
    if activation not in (None, "gelu", "relu"):
        raise ValueError(f"{name}: activation {activation!r}, want 'gelu', 'relu' or None")
    rows = x.flatten(0, -2) if x.ndim > 1 else x[None]
    wanted = {
        "x": (rows, "float [M, K]"),
        "weight": (weight, "int8 [N, K]"),
        "weight_scale": (weight_scale, "float32 [N]"),
    }
    if bias is not None:
        wanted["bias"] = (bias, "float32 [N]")
    if residual is not None:
        residual = residual.flatten(0, -2) if residual.ndim > 1 else residual[None]
        wanted["residual"] = (residual, "[M, N]")
    check(name, wanted)
    given = [tensor for tensor, _ in wanted.values()]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        raise RuntimeError(
            f"{name} has no gradient, rounding has none. Call it under torch.inference_mode() or "
            "torch.no_grad(); train with fake quantization"
        )
    return rows, residual


def _check_scale(input_scale: float) -> None:
    if not (math.isfinite(input_scale) and input_scale > 0):
        raise ValueError(f"int8_linear: input_scale must be above 0 and finite, got {input_scale}")


@jit
def _round(x):
    """Half to even: above 2^23 a float32 has no fraction, so adding 2^23 rounds."""
    size = tl.abs(x)
    size = tl.where(size < 8388608.0, (size + 8388608.0) - 8388608.0, size)
    return tl.where(x < 0, -size, size)


@jit
def _int8_linear_kernel(
    x_ptr, weight_ptr, weight_scale_ptr, bias_ptr, residual_ptr, out_ptr,
    input_scale, inverse_scale, stride, rows, channels, width,
    ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One tile of the output; the sums themselves where the output is int32."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    x_ptr += row.to(tl.int64)[:, None] * stride
    weight_ptr += channel.to(tl.int64)[:, None] * width
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.int32)
    for start in range(0, width, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = (column < width)[None, :]
        x = tl.load(x_ptr + column[None, :], mask=(row < rows)[:, None] & inside, other=0.0).to(tl.float32)
        # Clamped first: the bounds are integers, and 1.5 * 2^23 + x then has no fraction, which rounds x.
        x = tl.minimum(tl.maximum(x * inverse_scale, -128.0), 127.0)
        integers = ((x + 12582912.0) - 12582912.0).to(tl.int8)
        weight = tl.load(weight_ptr + column[None, :], mask=(channel < channels)[:, None] & inside, other=0)
        sums = dot(integers, tl.trans(weight), sums)
    scale = tl.load(weight_scale_ptr + channel, mask=channel < channels, other=1.0) * input_scale
    if BIAS:
        bias = tl.load(bias_ptr + channel, mask=channel < channels, other=0.0)
        sums += _round(tl.div_rn(bias, scale)).to(tl.int32)[None, :]
    offsets = row.to(tl.int64)[:, None] * channels + channel[None, :]
    mask = (row < rows)[:, None] & (channel < channels)[None, :]
    if out_ptr.dtype.element_ty == tl.int32:
        tl.store(out_ptr + offsets, sums, mask=mask)
    else:
        y = sums.to(tl.float32) * scale[None, :]
        if ACTIVATION == "gelu":
            y = 0.5 * y * (1.0 + tl.erf(y * 0.7071067811865476))
        if ACTIVATION == "relu":
            y = tl.maximum(y, 0.0)
        if RESIDUAL:
            y += tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        tl.store(out_ptr + offsets, cast(y, out_ptr.dtype.element_ty), mask=mask)


class _Tile(NamedTuple):
    rows: int
    channels: int
    inputs: int
    warps: int
    stages: int


def _tile(chip: int, rows: int, dtype: torch.dtype) -> _Tile:
    """The configuration for a compute capability: small tiles where few rows would leave a GPU idle."""
    stages = 2 if dtype == torch.float32 and chip // 10 not in (9, 10) else 3
    return _Tile(64, 64, 64, 4, stages) if rows <= 512 else _Tile(128, 128, 64, 8, stages)


@torch.library.custom_op(
    "sam3i_edge::int8_linear",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor weight_scale, Tensor? bias, float input_scale, str? activation, "
    "Tensor? residual, ScalarType out_dtype) -> Tensor",
)
def int8_linear_op(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    input_scale: float,
    activation: Activation | None,
    residual: torch.Tensor | None,
    out_dtype: torch.dtype,
) -> torch.Tensor:
    """The kernel on x [M, K] and residual [M, N]."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    (rows, width), channels = x.shape, weight.shape[0]
    out = x.new_empty((rows, channels), dtype=out_dtype)
    chip = capability(x.device)
    table = _tile(chip, rows, x.dtype)
    size = {32: "to 64 rows", 64: "to 512 rows", 128: "more rows"}[table.rows]
    tile = tile_of(f"int8_linear {str(x.dtype)[6:]}, {size}", chip, table)
    launch(
        _int8_linear_kernel,
        (-(-rows // tile.rows), -(-channels // tile.channels)),
        *(x, weight.contiguous(), weight_scale.contiguous()),
        *(
            weight_scale if bias is None else bias.contiguous(),
            out if residual is None else residual.contiguous(),
        ),
        *(out, input_scale, 1.0 / input_scale, x.stride(0), rows, channels, width),
        ACTIVATION=activation,
        BIAS=bias is not None,
        RESIDUAL=residual is not None,
        BLOCK_M=tile.rows,
        BLOCK_N=tile.channels,
        BLOCK_K=tile.inputs,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


@int8_linear_op.register_fake
def _(x, weight, weight_scale, bias, input_scale, activation, residual, out_dtype):
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=out_dtype)


def aot_cases(capability: int) -> list[AotCase]:
    """The kernels as they are launched on a chip, for the image tokens at 1008 px and for 201 queries."""
    types = {"x_ptr": "*bf16:16", "out_ptr": "*bf16:16", "residual_ptr": "*bf16:16", "weight_ptr": "*i8:16"}
    types |= dict.fromkeys(("weight_scale_ptr", "bias_ptr"), "*fp32:16")
    types |= {"input_scale": "fp32", "inverse_scale": "fp32", "rows": "i32"}
    types |= dict.fromkeys(("stride", "channels", "width"), "i32:16")
    cases = []
    for rows in (5184, 201):
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
            tile = _tile(capability, rows, dtype)
            inputs = {**types, "x_ptr": f"*{name}:16", "out_ptr": f"*{name}:16"}
            constants: dict[str, Any] = {"ACTIVATION": "gelu", "BIAS": True, "RESIDUAL": True}
            constants |= {"BLOCK_M": tile.rows, "BLOCK_N": tile.channels, "BLOCK_K": tile.inputs}
            signature = {n: inputs.get(n, "constexpr") for n in _int8_linear_kernel.arg_names}
            label = f"int8_linear {name}, {rows} rows"
            cases.append(AotCase(label, _int8_linear_kernel, signature, constants, tile.warps, tile.stages))
    return cases
