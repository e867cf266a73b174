"""The instruction adapter of one site: y = x + g_a f_a(x) + g_b f_b(f_a(x)), f(z) = Up(GELU(LN(Down(z)))).

Source: SAM3-I (arXiv:2512.04585), the released code's fusion and decoder adapters in one closed form. With
gates (0, 0) it is the identity, (1, 0) the simple path, (1, 1) the fusion encoder's and (0, 1) the decoder's
complex path.

With B samples, N tokens, C channels, bottleneck R and e bytes a number:

- forward, 1 launch: reads and writes the stream once, 2 B N C e bytes, the floor; at 5,184 tokens of 256
  channels in float16 5.3 MB. Products with all that lies between them fused move 26 MB at R = 64.
- backward, 1 launch and matrix products: the kernel recomputes everything from x, reads x and the gradient
  and writes the gradient of x, 3 B N C e, and what the gradients of the weights are products of, 4 B N R e.
  Four products over the tokens (cuBLAS) read x once, the gradient twice and five times one of those: together
  6 B N C e + 9 B N R e, at R = 64 22 MB. The rest has no token axis.

Deterministic: no atomics; sums over tokens are added up by tile and then in order.

One file, though long: definition, kernels and gradient are read side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from sam3i_edge.kernels._dispatch import Implementation, capability, check, launch, tile_of, use_triton
from sam3i_edge.kernels._triton import AotCase, cast, dot, jit, tl, triton

WIDEST_BOTTLENECK = 256  # two hidden tensors of a tile are held in registers
_WIDE = 64  # wider ones do not fit with everything the backward needs
_EPS = 1e-5  # of torch.nn.functional.layer_norm
_NAMES = ("down", "down_bias", "norm", "norm_bias", "up", "up_bias")
_FIRST = ("[B, R, C]", "[B, R]", "[B, R]", "[B, R]", "[B, C, R]", "[B, C]")
_SECOND = ("[R, C]", "[R]", "[R]", "[R]", "[C, R]", "[C]")


def adapter_mlp(
    x: torch.Tensor,
    first: Sequence[torch.Tensor],
    second: Sequence[torch.Tensor],
    gates: torch.Tensor,
    *,
    implementation: Implementation = "auto",
) -> torch.Tensor:
    """Adds the gated adapter chain to the stream.

    Args:
        x: [B, N, C], floating point.
        first: weights of f_a for each sample: down [B, R, C], [B, R]; norm [B, R], [B, R]; up [B, C, R], [B,
            C].
        second: weights of f_b, shared by all samples: down [R, C], [R]; norm [R], [R]; up [C, R], [C].
        gates: [B, 2] floating point, g_a and g_b of each sample, already times the adapter scale. Constants:
            they get no gradient from the kernel.
        implementation: as in `use_triton`.

    Returns:
        [B, N, C] in the dtype of `x`.

    Raises:
        ValueError: shapes, dtypes or devices disagree, or Triton was asked for and cannot run.
    """
    wanted = {"x": (x, "[B, N, C]"), **adapter_forms(first, second, gates)}
    sizes = check("adapter_mlp", wanted)
    tensors = {name: tensor for name, (tensor, _) in wanted.items()}
    dtype = compute_dtype(x)
    limits = dtype_limits(dtype) or adapter_limits(sizes["R"], gates)
    if use_triton("adapter_mlp", tensors, implementation, limits=limits):
        weights = [weight.to(dtype) for weight in (*first, *second)]
        return adapter_mlp_op(x, gates, weights)
    return adapter_mlp_reference(x, first, second, gates)


def adapter_mlp_reference(
    x: torch.Tensor, first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], gates: torch.Tensor
) -> torch.Tensor:
    """The definition. Exporters trace it and tests compare against it."""
    a = bottleneck(x, first)
    down, down_bias, norm, norm_bias, up, up_bias = second
    h = F.gelu(F.layer_norm(F.linear(a, down, down_bias), down.shape[:1], norm, norm_bias))
    b = F.linear(h, up, up_bias)
    return x + gates[:, 0, None, None] * a + gates[:, 1, None, None] * b


def bottleneck(x: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """f(x) = Up(GELU(LN(Down(x)))) with weights of each sample's own: [B, N, C] -> [B, N, C].

    Args:
        x: [B, N, C].
        weights: as `first` of `adapter_mlp`.
    """
    down, down_bias, norm, norm_bias, up, up_bias = weights
    h = torch.matmul(x, down.transpose(1, 2)) + down_bias[:, None]  # [B, N, R]
    h = F.layer_norm(h, h.shape[-1:]) * norm[:, None] + norm_bias[:, None]
    return torch.matmul(F.gelu(h), up.transpose(1, 2)) + up_bias[:, None]


def adapter_forms(
    first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], gates: torch.Tensor
) -> dict[str, tuple[torch.Tensor, str]]:
    """What `check` holds the adapters' tensors against."""
    return {
        **{f"first.{n}": (t, form) for n, t, form in zip(_NAMES, first, _FIRST, strict=True)},
        **{f"second.{n}": (t, form) for n, t, form in zip(_NAMES, second, _SECOND, strict=True)},
        "gates": (gates, "float [B, 2]"),
    }


def adapter_limits(width: int, gates: torch.Tensor) -> str:
    """Why the kernels cannot run an adapter of this bottleneck; empty when they can."""
    if width > WIDEST_BOTTLENECK:
        return f"a bottleneck of {width}, want at most {WIDEST_BOTTLENECK}"
    return "gates that need a gradient" if gates.requires_grad else ""


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """What matrix products compute in: autocast's dtype where it is on, the dtype of `x` elsewhere."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def dtype_limits(dtype: torch.dtype) -> str:
    """Why the kernels cannot compute in this dtype; empty when they can."""
    # Exact float32 products run on no matrix unit, and these tiles of them spill registers.
    if dtype in (torch.float16, torch.bfloat16):
        return ""
    return f"products in {str(dtype)[6:]}, want float16 or bfloat16, of the tensors or by autocast"


@jit
def load_block(pointer, rows, columns, row_stride, column_stride, ROWS, COLUMNS):
    """Values at rows x columns, zero outside ROWS x COLUMNS."""
    offsets = rows[:, None] * row_stride + columns[None, :] * column_stride
    mask = (rows < ROWS)[:, None] & (columns < COLUMNS)[None, :]
    return tl.load(pointer + offsets, mask=mask, other=0.0)


@jit
def load_vector(pointer, index, SIZE, ACCUMULATE: tl.constexpr):
    """Values of a vector, widened, zero from SIZE on."""
    return tl.load(pointer + index, mask=index < SIZE, other=0.0).to(ACCUMULATE)


@jit
def norm_gelu(z, norm, shift, hidden, R: tl.constexpr, EPS: tl.constexpr):
    """GELU(LN(z)) [rows, R] and what its gradient needs. Columns from R on are zero, before and after."""
    mean = tl.sum(z, 1) / R
    centred = tl.where((hidden < R)[None, :], z - mean[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / R + EPS)
    normal = centred * inverse[:, None]
    u = normal * norm[None, :] + shift[None, :]
    return 0.5 * u * (1.0 + tl.erf(u * 0.7071067811865476)), normal, u, inverse


@jit
def norm_gelu_backward(grad, norm, normal, u, inverse, hidden, R: tl.constexpr):
    """Gradients of `norm_gelu`'s u and z from that of its value."""
    density = tl.exp(-0.5 * u * u) * 0.3989422804014327
    grad_u = grad * (0.5 * (1.0 + tl.erf(u * 0.7071067811865476)) + u * density)
    scaled = grad_u * norm[None, :]
    mean = tl.sum(scaled, 1) / R
    slope = tl.sum(scaled * normal, 1) / R
    grad_z = (scaled - mean[:, None] - normal * slope[:, None]) * inverse[:, None]
    return grad_u, tl.where((hidden < R)[None, :], grad_z, 0.0)


@jit
def _first_hidden(
    x, rows, stride_n, stride_c, left, down, down_bias, hidden,
    C: tl.constexpr, R: tl.constexpr, BLOCK_C: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """Down(x) of a tile, a block of channels at a time."""
    z = tl.zeros((rows.shape[0], hidden.shape[0]), ACCUMULATE)
    for start in range(0, C, BLOCK_C):
        channels = start + tl.arange(0, BLOCK_C)
        tile = load_block(x, rows, channels, stride_n, stride_c, left, C).to(ACCUMULATE)
        tile = cast(tile, down.dtype.element_ty)
        z = dot(tile, load_block(down, channels, hidden, 1, C, C, R), z)
    return z + load_vector(down_bias, hidden, R, ACCUMULATE)[None, :]


@jit
def second_hidden(
    h1, up1, up1_bias, down2, down2_bias, hidden,
    C: tl.constexpr, R: tl.constexpr, BLOCK_C: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """Down(f_a): the first branch is made and used a block of channels at a time, never whole."""
    dtype: tl.constexpr = down2.dtype.element_ty
    z2 = tl.zeros(h1.shape, ACCUMULATE) + load_vector(down2_bias, hidden, R, ACCUMULATE)[None, :]
    for start in range(0, C, BLOCK_C):
        channels = start + tl.arange(0, BLOCK_C)
        a = dot(h1, load_block(up1, hidden, channels, 1, R, R, C))
        a += load_vector(up1_bias, channels, C, ACCUMULATE)[None, :]
        z2 = dot(cast(a, dtype), load_block(down2, channels, hidden, 1, C, C, R), z2)
    return z2


@jit
def _adapter_mlp_kernel(
    x, out, gates, down1, down1_bias, norm1, shift1, up1, up1_bias,
    down2, down2_bias, norm2, shift2, up2, up2_bias, stride_b, stride_n, stride_c, N,
    C: tl.constexpr, R: tl.constexpr, EPS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_R: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """One tile of tokens of one sample."""
    dtype: tl.constexpr = down1.dtype.element_ty
    batch = tl.program_id(1).to(tl.int64)
    start_n = (tl.program_id(0) * BLOCK_N).to(tl.int64)
    rows = tl.arange(0, BLOCK_N)
    left = N - tl.program_id(0) * BLOCK_N
    hidden = tl.arange(0, BLOCK_R)
    x += batch * stride_b + start_n * stride_n
    out += (batch * N + start_n) * C
    down1, up1, up1_bias = down1 + batch * R * C, up1 + batch * C * R, up1_bias + batch * C
    down1_bias, norm1, shift1 = down1_bias + batch * R, norm1 + batch * R, shift1 + batch * R
    gate_a = tl.load(gates + batch * 2).to(ACCUMULATE)
    gate_b = tl.load(gates + batch * 2 + 1).to(ACCUMULATE)

    z = _first_hidden(x, rows, stride_n, stride_c, left, down1, down1_bias, hidden, C, R, BLOCK_C, ACCUMULATE)
    weight, shift = load_vector(norm1, hidden, R, ACCUMULATE), load_vector(shift1, hidden, R, ACCUMULATE)
    h, _, _, _ = norm_gelu(z, weight, shift, hidden, R, EPS)
    h1 = cast(h, dtype)
    z = second_hidden(h1, up1, up1_bias, down2, down2_bias, hidden, C, R, BLOCK_C, ACCUMULATE)
    weight, shift = load_vector(norm2, hidden, R, ACCUMULATE), load_vector(shift2, hidden, R, ACCUMULATE)
    h, _, _, _ = norm_gelu(z, weight, shift, hidden, R, EPS)
    h2 = cast(h, dtype)

    for start in range(0, C, BLOCK_C):
        channels = start + tl.arange(0, BLOCK_C)
        a = dot(h1, load_block(up1, hidden, channels, 1, R, R, C))
        a += load_vector(up1_bias, channels, C, ACCUMULATE)[None, :]
        b = dot(h2, load_block(up2, hidden, channels, 1, R, R, C))
        b += load_vector(up2_bias, channels, C, ACCUMULATE)[None, :]
        tile = load_block(x, rows, channels, stride_n, stride_c, left, C).to(ACCUMULATE)
        tile += gate_a * a + gate_b * b
        mask = (rows < left)[:, None] & (channels < C)[None, :]
        tl.store(out + rows[:, None] * C + channels[None, :], cast(tile, out.dtype.element_ty), mask=mask)


@jit
def _adapter_mlp_backward_kernel(
    x, grad, extra, grad_x, hiddens, sums, channel_sums, gates,
    down1, down1_bias, norm1, shift1, up1, up1_bias, down2, down2_bias, norm2, shift2, up2,
    stride_b, stride_n, stride_c, N,
    EXTRA: tl.constexpr, WIDE: tl.constexpr, C: tl.constexpr, R: tl.constexpr, EPS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_R: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """The gradient of one tile of tokens, and the operands and the sums of the weights' gradients.

    `hiddens` [4, B, N, R] gets h1, g_b h2 and the gradients of z1 and z2; `sums` [B, tiles, 6, R] the sums
    over the tile of the gradients of down_bias, norm and norm_bias of both; `channel_sums` [B, tiles, C]
    those of `grad`. Where EXTRA is set, `extra` [B, N, C] is added to the gradient of x.
    """
    dtype: tl.constexpr = down1.dtype.element_ty
    tile_n = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    start_n = (tile_n * BLOCK_N).to(tl.int64)
    rows = tl.arange(0, BLOCK_N)
    left = N - tile_n * BLOCK_N
    hidden = tl.arange(0, BLOCK_R)
    x += batch * stride_b + start_n * stride_n
    token = batch * N + start_n
    grad, grad_x, extra, hiddens = (
        grad + token * C,
        grad_x + token * C,
        extra + token * C,
        hiddens + token * R,
    )
    stride_part = tl.num_programs(1).to(tl.int64) * N * R
    tile_index = batch * tl.num_programs(0) + tile_n
    sums, channel_sums = sums + tile_index * 6 * R, channel_sums + tile_index * C
    down1, up1, up1_bias = down1 + batch * R * C, up1 + batch * C * R, up1_bias + batch * C
    down1_bias, norm1, shift1 = down1_bias + batch * R, norm1 + batch * R, shift1 + batch * R
    gate_a = tl.load(gates + batch * 2).to(ACCUMULATE)
    gate_b = tl.load(gates + batch * 2 + 1).to(ACCUMULATE)
    place = rows[:, None] * R + hidden[None, :]
    inside = (rows < left)[:, None] & (hidden < R)[None, :]

    z = _first_hidden(x, rows, stride_n, stride_c, left, down1, down1_bias, hidden, C, R, BLOCK_C, ACCUMULATE)
    weight1, shift = load_vector(norm1, hidden, R, ACCUMULATE), load_vector(shift1, hidden, R, ACCUMULATE)
    h, normal1, u1, inverse1 = norm_gelu(z, weight1, shift, hidden, R, EPS)
    h1 = cast(h, dtype)
    tl.store(hiddens + place, h1, mask=inside)

    z = second_hidden(h1, up1, up1_bias, down2, down2_bias, hidden, C, R, BLOCK_C, ACCUMULATE)
    grad_h2 = tl.zeros((BLOCK_N, BLOCK_R), ACCUMULATE)
    for start in range(0, C, BLOCK_C):
        channels = start + tl.arange(0, BLOCK_C)
        g = load_block(grad, rows, channels, C, 1, left, C).to(ACCUMULATE)
        tl.store(channel_sums + channels, tl.sum(g, 0), mask=channels < C)
        grad_h2 = dot(cast(g, dtype), load_block(up2, channels, hidden, R, 1, C, R), grad_h2)
    weight2, shift = load_vector(norm2, hidden, R, ACCUMULATE), load_vector(shift2, hidden, R, ACCUMULATE)
    h, normal2, u2, inverse2 = norm_gelu(z, weight2, shift, hidden, R, EPS)
    tl.store(hiddens + stride_part + place, cast(gate_b * h, dtype), mask=inside)
    grad_u, grad_z = norm_gelu_backward(gate_b * grad_h2, weight2, normal2, u2, inverse2, hidden, R)
    tl.store(sums + 3 * R + hidden, tl.sum(grad_z, 0), mask=hidden < R)
    tl.store(sums + 4 * R + hidden, tl.sum(grad_u * normal2, 0), mask=hidden < R)
    tl.store(sums + 5 * R + hidden, tl.sum(grad_u, 0), mask=hidden < R)
    grad_z2 = cast(grad_z, dtype)
    tl.store(hiddens + 3 * stride_part + place, grad_z2, mask=inside)

    grad_h1 = tl.zeros((BLOCK_N, BLOCK_R), ACCUMULATE)
    for start in range(0, C, BLOCK_C):
        channels = start + tl.arange(0, BLOCK_C)
        g = load_block(grad, rows, channels, C, 1, left, C).to(ACCUMULATE)
        grad_a = gate_a * g + dot(grad_z2, load_block(down2, hidden, channels, C, 1, R, C))
        grad_h1 = dot(cast(grad_a, dtype), load_block(up1, channels, hidden, R, 1, C, R), grad_h1)
    if WIDE:
        # Made again rather than held: two wide tensors fewer while the second branch needs registers.
        z = _first_hidden(
            x, rows, stride_n, stride_c, left, down1, down1_bias, hidden, C, R, BLOCK_C, ACCUMULATE
        )
        shift = load_vector(shift1, hidden, R, ACCUMULATE)
        h, normal1, u1, inverse1 = norm_gelu(z, weight1, shift, hidden, R, EPS)
    grad_u, grad_z = norm_gelu_backward(grad_h1, weight1, normal1, u1, inverse1, hidden, R)
    tl.store(sums + hidden, tl.sum(grad_z, 0), mask=hidden < R)
    tl.store(sums + R + hidden, tl.sum(grad_u * normal1, 0), mask=hidden < R)
    tl.store(sums + 2 * R + hidden, tl.sum(grad_u, 0), mask=hidden < R)
    grad_z1 = cast(grad_z, dtype)
    tl.store(hiddens + 2 * stride_part + place, grad_z1, mask=inside)

    for start in range(0, C, BLOCK_C):
        channels = start + tl.arange(0, BLOCK_C)
        g = load_block(grad, rows, channels, C, 1, left, C).to(ACCUMULATE)
        if EXTRA:
            g += load_block(extra, rows, channels, C, 1, left, C).to(ACCUMULATE)
        g += dot(grad_z1, load_block(down1, hidden, channels, C, 1, R, C))
        mask = (rows < left)[:, None] & (channels < C)[None, :]
        tl.store(grad_x + rows[:, None] * C + channels[None, :], cast(g, grad_x.dtype.element_ty), mask=mask)


class _Tile(NamedTuple):
    """BLOCK_N, BLOCK_C and launch options of one kernel."""

    tokens: int
    channels: int
    warps: int
    stages: int


# Capability, the largest that is not above the chip's: {bottleneck, padded, at most: (forward, backward)}.
# None of these spills; `make kernels-aot` shows it.
_WIDER = {128: (_Tile(16, 64, 8, 2), _Tile(16, 64, 8, 2)), 256: (_Tile(32, 32, 8, 2), _Tile(16, 32, 8, 3))}
_NEWEST = _WIDER | {256: (_Tile(32, 16, 8, 2), _Tile(16, 32, 8, 3))}
TILES = {
    80: {64: (_Tile(32, 64, 4, 2), _Tile(32, 64, 8, 2)), **_WIDER},
    90: {64: (_Tile(64, 64, 8, 2), _Tile(64, 64, 8, 2)), **_WIDER},
    100: {64: (_Tile(64, 64, 8, 2), _Tile(64, 64, 8, 2)), **_NEWEST},
    120: {64: (_Tile(32, 64, 4, 2), _Tile(32, 64, 8, 2)), **_NEWEST},
}


def _constants(channels: int, width: int, dtype: torch.dtype, chip: int, *, backward: bool) -> dict[str, Any]:
    """Constants and launch options of a kernel."""
    by_width = TILES[max(known for known in TILES if known <= chip)]
    most = min(known for known in by_width if width <= known)
    name = f"adapter_mlp {'backward' if backward else 'forward'}, R to {most}"
    tile = tile_of(name, chip, by_width[most][backward])
    return {
        "C": channels,
        "R": width,
        "EPS": _EPS,
        "BLOCK_N": tile.tokens,
        "BLOCK_C": tile.channels,
        "BLOCK_R": max(16, triton.next_power_of_2(width)),
        "ACCUMULATE": tl.float64 if dtype == torch.float64 else tl.float32,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


@torch.library.custom_op(
    "sam3i_edge::adapter_mlp", mutates_args=(), schema="(Tensor x, Tensor gates, Tensor[] weights) -> Tensor"
)
def adapter_mlp_op(x: torch.Tensor, gates: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """`adapter_mlp` by its kernels; `weights` are those of f_a and then those of f_b, all of one dtype."""
    weights = [weight.contiguous() for weight in weights]
    batch, tokens, channels = x.shape
    width, dtype = weights[6].shape[0], weights[6].dtype
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    constants = _constants(channels, width, dtype, capability(x.device), backward=False)
    grid = (triton.cdiv(tokens, constants["BLOCK_N"]), batch)
    launch(
        _adapter_mlp_kernel, grid,
        x, out, gates.contiguous(), *weights, *x.stride(), tokens, **constants,
    )  # fmt: skip
    return out


@torch.library.custom_op(
    "sam3i_edge::adapter_mlp_backward",
    mutates_args=(),
    schema="(Tensor x, Tensor grad, Tensor? extra, Tensor gates, Tensor[] weights, bool train) -> Tensor[]",
)
def adapter_mlp_backward_op(
    x: torch.Tensor,
    grad: torch.Tensor,
    extra: torch.Tensor | None,
    gates: torch.Tensor,
    weights: Sequence[torch.Tensor],
    train: bool,
) -> list[torch.Tensor]:
    """The backward launch and the products after it.

    Args:
        x: [B, N, C], what the adapter was given.
        grad: gradient of what it gave.
        extra: another gradient of `x`, to be added; or None.
        gates: as `adapter_mlp`.
        weights: as `adapter_mlp_op`.
        train: whether the weights' gradients are wanted.

    Returns:
        The gradient of `x`, and those of the weights where they are wanted.
    """
    batch, tokens, channels = x.shape
    grad, gates, weights = grad.contiguous(), gates.contiguous(), [weight.contiguous() for weight in weights]
    extra = None if extra is None else extra.contiguous()
    up1, up1_bias, down2 = weights[4:7]
    width, dtype = down2.shape[0], down2.dtype
    constants = _constants(channels, width, dtype, capability(x.device), backward=True)
    grid = (triton.cdiv(tokens, constants["BLOCK_N"]), batch)
    total = torch.promote_types(dtype, torch.float32)
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    hiddens = torch.empty(4, batch, tokens, width, dtype=dtype, device=x.device)
    sums = torch.empty(batch, grid[0], 6, width, dtype=total, device=x.device)
    channel_sums = torch.empty(batch, grid[0], channels, dtype=total, device=x.device)
    launch(
        _adapter_mlp_backward_kernel, grid, x, grad, grad if extra is None else extra, grad_x, hiddens, sums,
        channel_sums, gates, *weights[:11], *x.stride(), tokens,
        EXTRA=extra is not None, WIDE=width > _WIDE, **constants,
    )  # fmt: skip
    if not train:
        return [grad_x]
    h1, h2, z1, z2 = hiddens  # the last two are gradients
    sums, channel_sums = sums.sum(1), channel_sums.sum(1)
    x, grad = x.to(dtype), grad.to(dtype)
    gate_a, gate_b = gates.to(total)[:, 0, None], gates.to(total)[:, 1, None]
    inner = torch.bmm(z2.transpose(1, 2), h1)  # [B, R, R]: both gradients around f_a(x), which is not stored
    outer = torch.bmm(grad.transpose(1, 2), h1) * gate_a[..., None]  # [B, C, R]
    grad_down2 = torch.mm(inner.transpose(0, 1).reshape(width, -1), up1.transpose(1, 2).reshape(-1, channels))
    gradients = [
        torch.bmm(z1.transpose(1, 2), x),
        sums[:, 0],
        sums[:, 1],
        sums[:, 2],
        outer + torch.matmul(down2.t(), inner),
        gate_a * channel_sums + sums[:, 3] @ down2.to(total),
        grad_down2 + torch.mm(sums[:, 3].t(), up1_bias.to(total)),
        *sums[:, 3:].sum(0),
        torch.mm(grad.flatten(0, 1).t(), h2.flatten(0, 1)),
        (gate_b * channel_sums).sum(0),
    ]
    # In float32 the sums are views of each other, which what an operator gives must not be.
    whole = {"copy": dtype == total, "memory_format": torch.contiguous_format}
    return [grad_x, *(g.to(weight.dtype, **whole) for g, weight in zip(gradients, weights, strict=True))]


@adapter_mlp_op.register_fake
def _(x, gates, weights):
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@adapter_mlp_backward_op.register_fake
def _(x, grad, extra, gates, weights, train):
    return [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, *(weights if train else ()))]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, gates, weights = inputs
    ctx.save_for_backward(x, gates, *weights)


def _gradients(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    x, gates, *weights = ctx.saved_tensors
    grads = adapter_mlp_backward_op(x, grad, None, gates, weights, any(ctx.needs_input_grad[2]))
    return grads[0], None, grads[1:] or [None] * len(weights)


adapter_mlp_op.register_autograd(_gradients, setup_context=_keep)


POINTERS = {torch.float16: "*fp16:16", torch.bfloat16: "*bf16:16"}


def aot_cases(capability: int) -> list[AotCase]:
    """The official size, 256 channels and a bottleneck of 64, in each dtype; and wider bottlenecks."""
    cases = []
    for dtype, width in (
        *((dtype, 64) for dtype in POINTERS),
        (torch.float16, 128),
        (torch.float16, WIDEST_BOTTLENECK),
    ):
        for kernel, backward in ((_adapter_mlp_kernel, False), (_adapter_mlp_backward_kernel, True)):
            constants = _constants(256, width, dtype, capability, backward=backward)
            warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
            constants |= (
                {"stride_c": 1, "EXTRA": True, "WIDE": width > _WIDE} if backward else {"stride_c": 1}
            )
            signature = aot_signature(kernel, dtype, constants)
            name = f"adapter_mlp {'backward' if backward else 'forward'} {str(dtype)[6:]} R {width}"
            cases.append(AotCase(name, kernel, signature, constants, warps, stages))
    return cases


def aot_signature(kernel: Any, dtype: torch.dtype, constants: Mapping[str, Any]) -> dict[str, str]:
    """Types of a kernel's arguments: sizes and strides, gates and sums in float32, the rest in `dtype`."""
    signature = {}
    for name in kernel.arg_names:
        if name not in constants:
            single = name.startswith("gates") or name.endswith("sums") or name == "offsets"
            number = name.startswith("stride") or name == "N"
            signature[name] = "i32:16" if number else "*fp32:16" if single else POINTERS[dtype]
    return signature
