"""Linear layer of 4-bit weights: y = x W^T + b with W[n, k] = s[n, k // 32] q[n, k], x float, forward only.

q is symmetric, -8..7, two in a byte, the even input channel in the low half; scales are float16.

Source: groups of rounded weights as in GPTQ (Frantar et al. 2022, arXiv:2210.17323, section 4) and in ONNX
Runtime's MatMulNBits, which stores q + 8 instead.

1 launch reads M K e + N K / 2 + N K / 16 bytes, e bytes a number of x, and x once more for each further 64
or 128 output channels, from the cache; it writes M N e. Weights of 16 bits would be 2 N K bytes: a gain for
few rows, where reading the weights is what takes time. The kernel rounds weights to the dtype of x before
the product. Deterministic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from sam3i_edge.kernels._dispatch import Implementation, capability, check, launch, tile_of, use_triton
from sam3i_edge.kernels._triton import AotCase, cast, dot, jit, tl

GROUP = 32  # input channels that share a scale


def pack_int4(values: torch.Tensor) -> torch.Tensor:
    """Two values in a byte, the even one in the low half.

    Args:
        values: [N, K] int8 in -8..7, K a multiple of 32.

    Returns:
        [N, K / 2] uint8.

    Raises:
        ValueError: another shape or dtype, or a value outside of -8..7.
    """
    sizes = check("pack_int4", {"values": (values, "int8 [N, K]")})
    _check_inputs("pack_int4", sizes["K"])
    # A graph that is being compiled has no values yet.
    if (
        values.numel()
        and not torch.compiler.is_compiling()
        and not -8 <= int(values.min()) <= int(values.max()) <= 7
    ):
        raise ValueError(f"pack_int4: values in {int(values.min())}..{int(values.max())}, want -8..7")
    nibbles = values.view(torch.uint8) & 15
    return nibbles[:, ::2] | nibbles[:, 1::2] << 4


def unpack_int4(packed: torch.Tensor) -> torch.Tensor:
    """What `pack_int4` packed: [N, K / 2] uint8 -> [N, K] int8."""
    check("unpack_int4", {"packed": (packed, "uint8 [N, B]")})
    nibbles = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1).view(torch.int8)
    return (nibbles ^ 8) - 8


def int4_linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None = None,
    implementation: Implementation = "auto",
) -> torch.Tensor:
    """A linear layer whose weights take 4.5 bits each.

    Args:
        x: [..., K] float32, float16 or bfloat16; K a multiple of 32.
        packed: [N, K / 2] uint8, of `pack_int4`.
        scales: [N, K / 32] float16.
        bias: [N] float32, or None.
        implementation: "auto" for the kernel on a GPU and the reference elsewhere, or one of the two by name.

    Returns:
        [..., N] in the dtype of `x`, summed in float32.

    Raises:
        ValueError: K is no multiple of 32, shapes, dtypes or devices disagree, or the kernel was asked for
            and cannot run.
        RuntimeError: a gradient is wanted.
    """
    rows = x.flatten(0, -2) if x.ndim > 1 else x[None]
    wanted = {
        "x": (rows, "float [M, K]"),
        "packed": (packed, "uint8 [N, B]"),
        "scales": (scales, "float16 [N, G]"),
    }
    if bias is not None:
        wanted["bias"] = (bias, "float32 [N]")
    sizes = check("int4_linear", wanted)
    _check_inputs("int4_linear", sizes["K"])
    if sizes["K"] != 2 * sizes["B"] or sizes["K"] != GROUP * sizes["G"]:
        raise ValueError(
            f"int4_linear: {sizes['K']} inputs, {sizes['B']} bytes and {sizes['G']} scales a row; "
            f"want K, K / 2 and K / {GROUP}"
        )
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor, _ in wanted.values()):
        raise RuntimeError(
            "int4_linear has no gradient. Call it under torch.inference_mode() or torch.no_grad(); "
            "train with fake quantization"
        )
    if use_triton("int4_linear", {"x": rows, "packed": packed}, implementation):
        out = int4_linear_op(rows, packed, scales, bias)
    else:
        out = int4_linear_reference(rows, packed, scales, bias)
    return out.view(*x.shape[:-1], packed.shape[0])


def int4_linear_reference(
    x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """The definition, for x [M, K]."""
    integers = unpack_int4(packed)
    weight = integers.float().unflatten(1, (-1, GROUP)) * scales.float()[..., None]
    return F.linear(x.float(), weight.flatten(1), bias).to(x.dtype)


def _check_inputs(name: str, inputs: int) -> None:
    if inputs % GROUP or not inputs:
        raise ValueError(
            f"{name}: {inputs} input channels, want a multiple of {GROUP}: keep this layer at 8 bits"
        )


@jit
def _int4_linear_kernel(
    x_ptr, packed_ptr, scale_ptr, bias_ptr, out_ptr, stride, rows, channels, width,
    BIAS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One tile of the output."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    x_ptr += row.to(tl.int64)[:, None] * stride
    packed_ptr += channel.to(tl.int64)[:, None] * (width // 2)
    scale_ptr += channel.to(tl.int64)[:, None] * (width // 32)
    y = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, width, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        byte = start // 2 + tl.arange(0, BLOCK_K // 2)
        group = start // 32 + tl.arange(0, BLOCK_K // 32)
        x = tl.load(
            x_ptr + column[None, :], mask=(row < rows)[:, None] & (column < width)[None, :], other=0.0
        )
        real = (channel < channels)[:, None]
        packed = tl.load(packed_ptr + byte[None, :], mask=real & (byte < width // 2)[None, :], other=0)
        scale = tl.load(scale_ptr + group[None, :], mask=real & (group < width // 32)[None, :], other=0.0)
        nibbles = tl.join(packed & 15, packed >> 4).to(tl.int32)
        integers = tl.reshape((nibbles ^ 8) - 8, [BLOCK_N, BLOCK_K // 32, 32])
        weight = integers.to(tl.float32) * scale.to(tl.float32)[:, :, None]
        y = dot(x, tl.trans(cast(tl.reshape(weight, [BLOCK_N, BLOCK_K]), x.dtype)), y)
    if BIAS:
        y += tl.load(bias_ptr + channel, mask=channel < channels, other=0.0)[None, :]
    offsets = row.to(tl.int64)[:, None] * channels + channel[None, :]
    mask = (row < rows)[:, None] & (channel < channels)[None, :]
    tl.store(out_ptr + offsets, cast(y, out_ptr.dtype.element_ty), mask=mask)


class _Tile(NamedTuple):
    rows: int
    channels: int
    inputs: int
    warps: int
    stages: int


def _tile(chip: int, rows: int, dtype: torch.dtype) -> _Tile:
    """The configuration for a compute capability: fewer rows, smaller tiles."""
    if dtype == torch.float32:
        return _Tile(32, 64, 32, 4, 2)
    if rows <= 64:
        return _Tile(32, 64, 64, 4, 3)
    return _Tile(64, 64, 64, 4, 3) if rows <= 512 else _Tile(128, 128, 64, 8, 3)


@torch.library.custom_op(
    "sam3i_edge::int4_linear",
    mutates_args=(),
    schema="(Tensor x, Tensor packed, Tensor scales, Tensor? bias) -> Tensor",
)
def int4_linear_op(
    x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The kernel on x [M, K]."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    (rows, width), channels = x.shape, packed.shape[0]
    out = x.new_empty((rows, channels))
    chip = capability(x.device)
    table = _tile(chip, rows, x.dtype)
    size = {32: "to 64 rows", 64: "to 512 rows", 128: "more rows"}[table.rows]
    tile = tile_of(f"int4_linear {str(x.dtype)[6:]}, {size}", chip, table)
    launch(
        _int4_linear_kernel,
        (-(-rows // tile.rows), -(-channels // tile.channels)),
        *(x, packed.contiguous(), scales.contiguous(), scales if bias is None else bias.contiguous(), out),
        *(x.stride(0), rows, channels, width),
        BIAS=bias is not None,
        BLOCK_M=tile.rows,
        BLOCK_N=tile.channels,
        BLOCK_K=tile.inputs,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


@int4_linear_op.register_fake
def _(x, packed, scales, bias):
    return x.new_empty((x.shape[0], packed.shape[0]))


def aot_cases(capability: int) -> list[AotCase]:
    """The kernel as it is launched on a chip: image tokens at 1008 px, queries, an instruction's tokens."""
    cases = []
    for name, dtype, rows in (
        ("bf16", torch.bfloat16, 5184),
        ("bf16", torch.bfloat16, 201),
        ("bf16", torch.bfloat16, 32),
        ("fp16", torch.float16, 5184),
        ("fp32", torch.float32, 201),
    ):
        tile = _tile(capability, rows, dtype)
        types = {"x_ptr": f"*{name}:16", "out_ptr": f"*{name}:16", "packed_ptr": "*u8:16", "rows": "i32"}
        types |= {"scale_ptr": "*fp16:16", "bias_ptr": "*fp32:16"}
        types |= dict.fromkeys(("stride", "channels", "width"), "i32:16")
        constants: dict[str, Any] = {"BIAS": True, "BLOCK_M": tile.rows, "BLOCK_N": tile.channels}
        constants |= {"BLOCK_K": tile.inputs}
        signature = {n: types.get(n, "constexpr") for n in _int4_linear_kernel.arg_names}
        label = f"int4_linear {name}, {rows} rows"
        cases.append(AotCase(label, _int4_linear_kernel, signature, constants, tile.warps, tile.stages))
    return cases
