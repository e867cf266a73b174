"""Linear layer of 8-bit integers: y = act(s_x s_w (q_x q_w^T + q_b)) + residual, forward only.

q_x = clamp(round(x / s_x), -128, 127) with one static scale s_x, q_w int8 with a scale s_w per output
channel, q_b = round(b / (s_x s_w)) an int32. Rounding is half to even, and x / s_x is x times the float32
nearest to 1 / s_x, as torch.ops.quantized_decomposed computes it. Sums are exact: both implementations give
the same integers.

Source: Jacob et al. 2018 (arXiv:1712.05877), section 2.2, with symmetric scales. `int8_linear_per_token`
takes a scale from each row instead, as LLM.int8() does (Dettmers et al. 2022, arXiv:2208.07339, section 2);
no bundle is quantized that way, and precision "int8" never runs it.

The kernel quantizes as it loads. 1 launch (2 per token) reads M K e + N K + 8 N bytes, e bytes a number of
x, and x once more for each further 64 or 128 output channels, from the cache; it writes M N e, and with a
residual reads M N e more. Separate operators would write and read q_x and the int32 sums: 2 M K + 8 M N
bytes more. Deterministic.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch.nn import functional as F

from sam3i_edge.kernels._dispatch import Implementation, capability, check, launch, use_triton
from sam3i_edge.kernels._triton import AotCase, cast, dot, jit, tl

Activation = Literal["gelu", "relu"]

_LEAST_SCALE = 2.0**-14  # of a row: one of zeros has none of its own
_SCALE_ROWS = 16


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
        out = _launch(rows, weight, weight_scale, bias, input_scale, activation, other, x.dtype)
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
        out = _launch(rows, weight, weight_scale, bias, input_scale, None, None, torch.int32)
    else:
        out = _integers_reference(rows, weight, weight_scale, bias, input_scale)
    return out.view(*x.shape[:-1], weight.shape[0])


def int8_linear_per_token(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    activation: Activation | None = None,
    residual: torch.Tensor | None = None,
    implementation: Implementation = "auto",
) -> torch.Tensor:
    """As `int8_linear` with s_x = max |x| / 127 of each row, at least 2^-14, and a bias that stays float."""
    rows, other = _checked("int8_linear_per_token", x, weight, weight_scale, bias, residual, activation)
    if use_triton("int8_linear_per_token", {"x": rows, "weight": weight}, implementation):
        out = _launch(rows, weight, weight_scale, bias, None, activation, other, x.dtype)
    else:
        out = int8_linear_per_token_reference(rows, weight, weight_scale, bias, activation, other)
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


def int8_linear_per_token_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    activation: Activation | None = None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition of `int8_linear_per_token`, for x [M, K]."""
    scale = (x.float().abs().amax(1, keepdim=True) / 127).clamp(min=_LEAST_SCALE)
    y = _products(x, 1.0 / scale, weight).float() * (scale * weight_scale)
    return _finish(y if bias is None else y + bias, activation, residual, x.dtype)


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


def _products(x: torch.Tensor, inverse_scale: float | torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
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
def _row_scale_kernel(x_ptr, scale_ptr, stride, rows, width, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr):
    """scale[m] = max(max |x[m]| / 127, 2^-14)."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    x_ptr += row.to(tl.int64)[:, None] * stride
    greatest = tl.zeros([BLOCK_M, BLOCK_K], tl.float32)
    for start in range(0, width, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        mask = (row < rows)[:, None] & (column < width)[None, :]
        x = tl.load(x_ptr + column[None, :], mask=mask, other=0.0)
        greatest = tl.maximum(greatest, tl.abs(x.to(tl.float32)))
    scale = tl.div_rn(tl.max(greatest, 1), tl.full([BLOCK_M], 127.0, tl.float32))
    tl.store(scale_ptr + row, tl.maximum(scale, 0.00006103515625), mask=row < rows)


@jit
def _round(x):
    """Half to even: above 2^23 a float32 has no fraction, so adding 2^23 rounds."""
    size = tl.abs(x)
    size = tl.where(size < 8388608.0, (size + 8388608.0) - 8388608.0, size)
    return tl.where(x < 0, -size, size)


@jit
def _int8_linear_kernel(
    x_ptr, weight_ptr, weight_scale_ptr, bias_ptr, residual_ptr, row_scale_ptr, out_ptr,
    input_scale, inverse_scale, stride, rows, channels, width,
    ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, PER_TOKEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One tile of the output; the sums themselves where the output is int32."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    x_ptr += row.to(tl.int64)[:, None] * stride
    weight_ptr += channel.to(tl.int64)[:, None] * width
    inverse = inverse_scale
    if PER_TOKEN:
        row_scale = tl.load(row_scale_ptr + row, mask=row < rows, other=1.0)[:, None]
        inverse = tl.div_rn(tl.full([BLOCK_M, 1], 1.0, tl.float32), row_scale)
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.int32)
    for start in range(0, width, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = (column < width)[None, :]
        x = tl.load(x_ptr + column[None, :], mask=(row < rows)[:, None] & inside, other=0.0).to(tl.float32)
        # Clamped first: the bounds are integers, and 1.5 * 2^23 + x then has no fraction, which rounds x.
        x = tl.minimum(tl.maximum(x * inverse, -128.0), 127.0)
        integers = ((x + 12582912.0) - 12582912.0).to(tl.int8)
        weight = tl.load(weight_ptr + column[None, :], mask=(channel < channels)[:, None] & inside, other=0)
        sums = dot(integers, tl.trans(weight), sums)
    scale = tl.load(weight_scale_ptr + channel, mask=channel < channels, other=1.0)
    if not PER_TOKEN:
        scale *= input_scale
    if BIAS:
        bias = tl.load(bias_ptr + channel, mask=channel < channels, other=0.0)
        if not PER_TOKEN:
            sums += _round(tl.div_rn(bias, scale)).to(tl.int32)[None, :]
    offsets = row.to(tl.int64)[:, None] * channels + channel[None, :]
    mask = (row < rows)[:, None] & (channel < channels)[None, :]
    if out_ptr.dtype.element_ty == tl.int32:
        tl.store(out_ptr + offsets, sums, mask=mask)
    else:
        if PER_TOKEN:
            y = sums.to(tl.float32) * (row_scale * scale[None, :])
            if BIAS:
                y += bias[None, :]
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


def _launch(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    input_scale: float | None,
    activation: Activation | None,
    residual: torch.Tensor | None,
    out_dtype: torch.dtype,
) -> torch.Tensor:
    """The kernel on x [M, K] and residual [M, N]; a scale of None is one of each row."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    (rows, width), channels = x.shape, weight.shape[0]
    out = x.new_empty((rows, channels), dtype=out_dtype)
    row_scale = weight_scale
    if input_scale is None:
        row_scale = x.new_empty(rows, dtype=torch.float32)
        launch(
            _row_scale_kernel,
            (-(-rows // _SCALE_ROWS),),
            *(x, row_scale, x.stride(0), rows, width),
            BLOCK_M=_SCALE_ROWS,
            BLOCK_K=128,
        )
    tile = _tile(capability(x.device), rows, x.dtype)
    launch(
        _int8_linear_kernel,
        (-(-rows // tile.rows), -(-channels // tile.channels)),
        *(x, weight.contiguous(), weight_scale.contiguous()),
        *(
            weight_scale if bias is None else bias.contiguous(),
            out if residual is None else residual.contiguous(),
        ),
        *(row_scale, out, input_scale or 1.0, 1.0 / (input_scale or 1.0), x.stride(0), rows, channels, width),
        ACTIVATION=activation,
        BIAS=bias is not None,
        RESIDUAL=residual is not None,
        PER_TOKEN=input_scale is None,
        BLOCK_M=tile.rows,
        BLOCK_N=tile.channels,
        BLOCK_K=tile.inputs,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


def aot_cases(capability: int) -> list[AotCase]:
    """The kernels as they are launched on a chip, for the image tokens at 1008 px and for 201 queries."""
    types = {"x_ptr": "*bf16:16", "out_ptr": "*bf16:16", "residual_ptr": "*bf16:16", "weight_ptr": "*i8:16"}
    types |= dict.fromkeys(("weight_scale_ptr", "bias_ptr", "row_scale_ptr", "scale_ptr"), "*fp32:16")
    types |= {"input_scale": "fp32", "inverse_scale": "fp32", "rows": "i32"}
    types |= dict.fromkeys(("stride", "channels", "width"), "i32:16")
    cases = []
    for rows in (5184, 201):
        for name, dtype, per_token in (
            ("bf16", torch.bfloat16, False),
            ("bf16 per token", torch.bfloat16, True),
            ("fp32", torch.float32, False),
        ):
            tile = _tile(capability, rows, dtype)
            inputs = {**types, "x_ptr": f"*{name[:4]}:16", "out_ptr": f"*{name[:4]}:16"}
            constants: dict[str, Any] = {"ACTIVATION": "gelu", "BIAS": True, "RESIDUAL": True}
            constants |= {"PER_TOKEN": per_token, "BLOCK_M": tile.rows, "BLOCK_N": tile.channels}
            constants |= {"BLOCK_K": tile.inputs}
            signature = {n: inputs.get(n, "constexpr") for n in _int8_linear_kernel.arg_names}
            label = f"int8_linear {name}, {rows} rows"
            cases.append(AotCase(label, _int8_linear_kernel, signature, constants, tile.warps, tile.stages))
    signature = {n: types.get(n, "constexpr") for n in _row_scale_kernel.arg_names}
    constants = {"BLOCK_M": _SCALE_ROWS, "BLOCK_K": 128}
    return [*cases, AotCase("int8_linear row_scale bf16", _row_scale_kernel, signature, constants, 4, 3)]
