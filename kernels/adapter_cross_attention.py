"""The middle of a fusion layer: y = x + Attention(LN(x), prompt), z = y + g_a f_a(y) + g_b f_b(f_a(y)).

Source: SAM 3's fusion encoder (arXiv:2511.16719) with SAM3-I's adapters on the skip (arXiv:2512.04585), the
released code. `adapter_mlp` has the formula of f.

The prompt is short, T tokens, and all that happens to it is linear in it, so it is folded first: for each
head, query projection, norm weight and scale into its keys, [H T, C], output projection into its values. What
is left for the N image tokens is two products with a softmax over each head's T columns between,

    y = x + softmax_h(LN0(x) keys^T + offsets) values,  LN0 without weight and bias,

and gradients of the folded operands, from which autograd gets those of prompt, norm and projections.
Counted in multiply-adds a token, the folded form takes 2 H T C and the plain one 2 C^2 + 2 T C: at C = 256,
H = 8 and T = 33, padded to 64 in both, 262,144 and 163,840. It wins by what it does not move and launch, and
where H T > C it pays for that: it is for short prompts.

With B samples, N tokens, C channels and e bytes a number:

- forward, 1 launch: reads x once and writes y and z once, 3 B N C e bytes, the floor; at 5,184 tokens of 256
  channels in float16 8.0 MB. Products and attention with all that lies between them fused move 56 MB. A
  bottleneck wider than 64 channels takes a second launch
  (`adapter_mlp`), which reads y again and writes z: 4 B N C e.
- backward, 2 launches and 6 matrix products. The adapters' launch and products are those of `adapter_mlp`
  (y is an output and at hand). The second launch recomputes norm and softmax from x, reads x and the gradient
  of y, writes the gradient of x, the norm and, for the products that are the gradients of keys and values,
  softmax and its gradient, (4 B N C + 2 B N H T) e; the products read (2 B N C + 2 B N H T) e.
- folding: small products of the prompt, T of N tokens; keep the result where a prompt is used again.

Deterministic: no atomics; sums over tokens are added up by tile and then in order.

One file, though long: definition, kernels and gradient are read side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from sam3i_edge.kernels._dispatch import Implementation, capability, check, launch, tile_of, use_triton
from sam3i_edge.kernels._triton import AotCase, cast, dot, jit, tl, triton
from sam3i_edge.kernels.adapter_mlp import (
    POINTERS,
    adapter_forms,
    adapter_limits,
    adapter_mlp_backward_op,
    adapter_mlp_op,
    adapter_mlp_reference,
    aot_signature,
    compute_dtype,
    dtype_limits,
    load_block,
    load_vector,
    norm_gelu,
    second_hidden,
)

WIDEST = 256  # channels; a tile holds them all
LONGEST_PROMPT = 128  # beyond, 2 H T C multiply-adds a token pass twice those of the plain form
LONGEST_TILE = 64  # a tile holds the logits of one head to so many prompt tokens
WIDEST_FUSED = 64  # bottleneck of the adapters in the same launch
_EPS = 1e-5  # of torch.nn.functional.layer_norm

Affine = tuple[torch.Tensor, torch.Tensor]
Adapters = tuple[Sequence[torch.Tensor], Sequence[torch.Tensor], torch.Tensor]


def adapter_cross_attention(
    x: torch.Tensor,
    prompt: torch.Tensor,
    bias: torch.Tensor,
    norm: Affine,
    query: Affine,
    key: Affine,
    value: Affine,
    output: Affine,
    heads: int,
    adapters: Adapters | None = None,
    *,
    implementation: Implementation = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image tokens read the prompt, and the adapter chain sits on the result.

    Args:
        x: [B, N, C] image tokens, floating point.
        prompt: [B, T, C].
        bias: [B, 1, 1, T] floating point and finite, added to the logits: 0 for real tokens, -1e4 for
            padding.
        norm: weight [C] and bias [C] of the layer norm before the queries.
        query: weight [C, C] and bias [C] of the query projection.
        key: the same of the key projection.
        value: the same of the value projection.
        output: the same of the output projection.
        heads: number of heads; divides C.
        adapters: `first`, `second` and `gates` of `adapter_mlp`; None for no adapters.
        implementation: as in `use_triton`.

    Returns:
        The residual stream [B, N, C], and the same with the adapters on top; without adapters, the same
        tensor twice. Both in the dtype of `x`.

    Raises:
        ValueError: shapes, dtypes or devices disagree, or Triton was asked for and cannot run.
    """
    wanted = {"x": (x, "[B, N, C]"), "prompt": (prompt, "[B, T, C]"), "bias": (bias, "float [B, 1, 1, T]")}
    wanted |= {"norm.weight": (norm[0], "[C]"), "norm.bias": (norm[1], "[C]")}
    for name, (weight, shift) in (("query", query), ("key", key), ("value", value), ("output", output)):
        wanted |= {f"{name}.weight": (weight, "[C, C]"), f"{name}.bias": (shift, "[C]")}
    if adapters is not None:
        wanted |= adapter_forms(*adapters)
    sizes = check("adapter_cross_attention", wanted)
    if sizes["C"] % heads:
        raise ValueError(f"adapter_cross_attention: {sizes['C']} channels, want a multiple of {heads} heads")
    tensors = {name: tensor for name, (tensor, _) in wanted.items()}
    dtype = compute_dtype(x)
    limits = dtype_limits(dtype)
    if sizes["C"] > WIDEST or not 0 < sizes["T"] <= LONGEST_PROMPT:
        limits = f"want at most {WIDEST} channels and 1 to {LONGEST_PROMPT} prompt tokens"
    elif adapters is not None:
        limits = limits or adapter_limits(sizes["R"], adapters[2])
    if not use_triton("adapter_cross_attention", tensors, implementation, limits=limits):
        return adapter_cross_attention_reference(
            x, prompt, bias, norm, query, key, value, output, heads, adapters
        )
    folded = fold_prompt(prompt, bias, norm, query, key, value, output, heads)
    keys, offsets, values = folded[0].to(dtype), folded[1], folded[2].to(dtype)
    if adapters is None:
        (y,) = adapter_cross_attention_op(x, keys, offsets, values, None, [])
        return y, y
    first, second, gates = adapters
    weights = [weight.to(dtype) for weight in (*first, *second)]
    if sizes["R"] <= WIDEST_FUSED:
        y, z = adapter_cross_attention_op(x, keys, offsets, values, gates, weights)
        return y, z
    (y,) = adapter_cross_attention_op(x, keys, offsets, values, None, [])
    return y, adapter_mlp_op(y, gates, weights)


def adapter_cross_attention_reference(
    x: torch.Tensor,
    prompt: torch.Tensor,
    bias: torch.Tensor,
    norm: Affine,
    query: Affine,
    key: Affine,
    value: Affine,
    output: Affine,
    heads: int,
    adapters: Adapters | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition. Exporters trace it and tests compare against it."""
    h = F.layer_norm(x, norm[0].shape, *norm)
    q, k, v = (
        F.linear(tokens, *projection).view(*tokens.shape[:2], heads, -1).transpose(1, 2)
        for tokens, projection in ((h, query), (prompt, key), (prompt, value))
    )
    merged = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    # A clone for the exporter, as in sam3i_edge.model.attention.
    merged = merged.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    y = x + F.linear(merged.view(merged.shape[0], merged.shape[1], -1), *output)
    return y, y if adapters is None else adapter_mlp_reference(y, *adapters)


def fold_prompt(
    prompt: torch.Tensor,
    bias: torch.Tensor,
    norm: Affine,
    query: Affine,
    key: Affine,
    value: Affine,
    output: Affine,
    heads: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the image tokens meet of a prompt; differentiable. Arguments as in `adapter_cross_attention`.

    Returns:
        keys [B, H, T, C], offsets [B, H, T] in float32 at least, values [B, H, T, C]. A head's attention
        weights sum to one, so its values carry 1 / H of the output projection's bias.
    """
    batch, length, channels = prompt.shape
    dim = channels // heads
    k = F.linear(prompt, *key).view(batch, length, heads, dim) * dim**-0.5
    v = F.linear(prompt, *value).view(batch, length, heads, dim)
    queries = query[0].view(heads, dim, channels)
    keys = torch.einsum("bthd,hdc->bhtc", k, queries * norm[0])
    shift = F.linear(norm[1], *query).view(heads, dim)
    offsets = torch.einsum("bthd,hd->bht", k, shift)
    # A softmax ignores what all its logits share; so the offsets keep precision where all tokens are masked.
    shifted = bias[:, 0] - bias.detach()[:, 0].amax(-1, keepdim=True)
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32)) + shifted
    values = torch.einsum("bthd,chd->bhtc", v, output[0].view(channels, heads, dim)) + output[1] / heads
    return keys, offsets, values


@jit
def _norm(tile, channels, C: tl.constexpr, EPS: tl.constexpr):
    """LN(x) without weight and bias, and the inverse deviation. Channels from C on stay zero."""
    mean = tl.sum(tile, 1) / C
    centred = tl.where((channels < C)[None, :], tile - mean[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / C + EPS)
    return centred * inverse[:, None], inverse


@jit
def _logits(normal, key, offsets, prompt, T, ACCUMULATE: tl.constexpr):
    """One head's logits [tokens, prompt], -inf beyond the prompt."""
    logits = dot(normal, tl.trans(key)) + load_vector(offsets, prompt, T, ACCUMULATE)[None, :]
    return tl.where((prompt < T)[None, :], logits, float("-inf"))


@jit
def _cross_attention_kernel(
    x, y, z, keys, offsets, values, gates, down1, down1_bias, norm1, shift1, up1, up1_bias,
    down2, down2_bias, norm2, shift2, up2, up2_bias, stride_b, stride_n, stride_c, N, T,
    H: tl.constexpr, C: tl.constexpr, R: tl.constexpr, ADAPTERS: tl.constexpr, EPS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, WHOLE_C: tl.constexpr,
    BLOCK_R: tl.constexpr, ONE_TILE: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """One tile of tokens of one sample, all channels: residual stream and, with ADAPTERS, the adapted one."""
    dtype: tl.constexpr = keys.dtype.element_ty
    batch = tl.program_id(1).to(tl.int64)
    start_n = (tl.program_id(0) * BLOCK_N).to(tl.int64)
    rows = tl.arange(0, BLOCK_N)
    left = N - tl.program_id(0) * BLOCK_N
    channels = tl.arange(0, WHOLE_C)
    prompt = tl.arange(0, BLOCK_T)
    x += batch * stride_b + start_n * stride_n
    y += (batch * N + start_n) * C
    keys, values, offsets = keys + batch * H * T * C, values + batch * H * T * C, offsets + batch * H * T

    tile = load_block(x, rows, channels, stride_n, stride_c, left, C).to(ACCUMULATE)
    normal, _ = _norm(tile, channels, C, EPS)
    normal = cast(normal, dtype)
    for head in range(0, H):
        if ONE_TILE:
            key = load_block(keys + head * T * C, prompt, channels, C, 1, T, C)
            logits = _logits(normal, key, offsets + head * T, prompt, T, ACCUMULATE)
            weights = tl.exp(logits - tl.max(logits, 1)[:, None])
            weights /= tl.sum(weights, 1)[:, None]
            value = load_block(values + head * T * C, prompt, channels, C, 1, T, C)
            tile = dot(cast(weights, dtype), value, tile)
        else:
            # Greatest logit and sum first: all heads add to one tile, and cannot rescale it for themselves.
            greatest = tl.full((BLOCK_N,), float("-inf"), ACCUMULATE)
            total = tl.zeros((BLOCK_N,), ACCUMULATE)
            for start in range(0, T, BLOCK_T):
                part = start + prompt
                key = load_block(keys + head * T * C, part, channels, C, 1, T, C)
                logits = _logits(normal, key, offsets + head * T, part, T, ACCUMULATE)
                new = tl.maximum(greatest, tl.max(logits, 1))
                total = total * tl.exp(greatest - new) + tl.sum(tl.exp(logits - new[:, None]), 1)
                greatest = new
            for start in range(0, T, BLOCK_T):
                part = start + prompt
                key = load_block(keys + head * T * C, part, channels, C, 1, T, C)
                logits = _logits(normal, key, offsets + head * T, part, T, ACCUMULATE)
                weights = tl.exp(logits - greatest[:, None]) / total[:, None]
                value = load_block(values + head * T * C, part, channels, C, 1, T, C)
                tile = dot(cast(weights, dtype), value, tile)
    place = rows[:, None] * C + channels[None, :]
    inside = (rows < left)[:, None] & (channels < C)[None, :]
    tl.store(y + place, cast(tile, y.dtype.element_ty), mask=inside)

    if ADAPTERS:
        z += (batch * N + start_n) * C
        hidden = tl.arange(0, BLOCK_R)
        down1, up1, up1_bias = down1 + batch * R * C, up1 + batch * C * R, up1_bias + batch * C
        down1_bias, norm1, shift1 = down1_bias + batch * R, norm1 + batch * R, shift1 + batch * R
        gate_a = tl.load(gates + batch * 2).to(ACCUMULATE)
        gate_b = tl.load(gates + batch * 2 + 1).to(ACCUMULATE)
        h = dot(cast(tile, dtype), load_block(down1, channels, hidden, 1, C, C, R))
        h += load_vector(down1_bias, hidden, R, ACCUMULATE)[None, :]
        weight, shift = load_vector(norm1, hidden, R, ACCUMULATE), load_vector(shift1, hidden, R, ACCUMULATE)
        h, _, _, _ = norm_gelu(h, weight, shift, hidden, R, EPS)
        h1 = cast(h, dtype)
        tile = dot(cast(gate_a * h, dtype), load_block(up1, hidden, channels, 1, R, R, C), tile)
        h = second_hidden(h1, up1, up1_bias, down2, down2_bias, hidden, C, R, BLOCK_C, ACCUMULATE)
        weight, shift = load_vector(norm2, hidden, R, ACCUMULATE), load_vector(shift2, hidden, R, ACCUMULATE)
        h, _, _, _ = norm_gelu(h, weight, shift, hidden, R, EPS)
        tile = dot(cast(gate_b * h, dtype), load_block(up2, hidden, channels, 1, R, R, C), tile)
        tile += gate_a * load_vector(up1_bias, channels, C, ACCUMULATE)[None, :]
        tile += gate_b * load_vector(up2_bias, channels, C, ACCUMULATE)[None, :]
        tl.store(z + place, cast(tile, z.dtype.element_ty), mask=inside)


@jit
def _cross_attention_backward_kernel(
    x, grad, grad_x, normals, weights, logits, offset_sums, keys, offsets, values,
    stride_b, stride_n, stride_c, N, T,
    H: tl.constexpr, C: tl.constexpr, EPS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_T: tl.constexpr,
    WHOLE_C: tl.constexpr, ONE_TILE: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """The gradient of one tile of tokens, and the operands of those of keys and values.

    `normals` [B, N, C] gets LN0(x); `weights` and `logits` [B, N, H, T] the softmax and the gradient of its
    logits, whose sums over the tile go to `offset_sums` [B, tiles, H, T].
    """
    dtype: tl.constexpr = keys.dtype.element_ty
    tile_n = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    start_n = (tile_n * BLOCK_N).to(tl.int64)
    rows = tl.arange(0, BLOCK_N)
    left = N - tile_n * BLOCK_N
    channels = tl.arange(0, WHOLE_C)
    prompt = tl.arange(0, BLOCK_T)
    x += batch * stride_b + start_n * stride_n
    token = batch * N + start_n
    grad, grad_x, normals = grad + token * C, grad_x + token * C, normals + token * C
    weights, logits = weights + token * H * T, logits + token * H * T
    offset_sums += (batch * tl.num_programs(0) + tile_n) * H * T
    keys, values, offsets = keys + batch * H * T * C, values + batch * H * T * C, offsets + batch * H * T

    tile = load_block(x, rows, channels, stride_n, stride_c, left, C).to(ACCUMULATE)
    tile, inverse = _norm(tile, channels, C, EPS)
    normal = cast(tile, dtype)
    place = rows[:, None] * C + channels[None, :]
    inside = (rows < left)[:, None] & (channels < C)[None, :]
    tl.store(normals + place, normal, mask=inside)
    g = cast(load_block(grad, rows, channels, C, 1, left, C).to(ACCUMULATE), dtype)
    grad_normal = tl.zeros((BLOCK_N, WHOLE_C), ACCUMULATE)
    place_t = rows[:, None] * (H * T) + prompt[None, :]
    inside_t = (rows < left)[:, None] & (prompt < T)[None, :]
    for head in range(0, H):
        if ONE_TILE:
            key = load_block(keys + head * T * C, prompt, channels, C, 1, T, C)
            p = _logits(normal, key, offsets + head * T, prompt, T, ACCUMULATE)
            p = tl.exp(p - tl.max(p, 1)[:, None])
            p /= tl.sum(p, 1)[:, None]
            value = load_block(values + head * T * C, prompt, channels, C, 1, T, C)
            grad_p = dot(g, tl.trans(value))
            grad_s = p * (grad_p - tl.sum(p * grad_p, 1)[:, None])
            tl.store(offset_sums + head * T + prompt, tl.sum(grad_s, 0), mask=prompt < T)
            tl.store(weights + head * T + place_t, cast(p, dtype), mask=inside_t)
            grad_s = cast(grad_s, dtype)
            tl.store(logits + head * T + place_t, grad_s, mask=inside_t)
            grad_normal = dot(grad_s, key, grad_normal)
        else:
            greatest = tl.full((BLOCK_N,), float("-inf"), ACCUMULATE)
            total, mean = tl.zeros((BLOCK_N,), ACCUMULATE), tl.zeros((BLOCK_N,), ACCUMULATE)
            for start in range(0, T, BLOCK_T):
                part = start + prompt
                key = load_block(keys + head * T * C, part, channels, C, 1, T, C)
                p = _logits(normal, key, offsets + head * T, part, T, ACCUMULATE)
                value = load_block(values + head * T * C, part, channels, C, 1, T, C)
                new = tl.maximum(greatest, tl.max(p, 1))
                keep = tl.exp(greatest - new)
                p = tl.exp(p - new[:, None])
                total = total * keep + tl.sum(p, 1)
                mean = mean * keep + tl.sum(p * dot(g, tl.trans(value)), 1)
                greatest = new
            mean /= total  # of the weights' gradients, by their weights
            for start in range(0, T, BLOCK_T):
                part = start + prompt
                key = load_block(keys + head * T * C, part, channels, C, 1, T, C)
                p = _logits(normal, key, offsets + head * T, part, T, ACCUMULATE)
                p = tl.exp(p - greatest[:, None]) / total[:, None]
                value = load_block(values + head * T * C, part, channels, C, 1, T, C)
                grad_s = p * (dot(g, tl.trans(value)) - mean[:, None])
                tl.store(offset_sums + head * T + part, tl.sum(grad_s, 0), mask=part < T)
                inside_part = (rows < left)[:, None] & (part < T)[None, :]
                tl.store(weights + head * T + start + place_t, cast(p, dtype), mask=inside_part)
                grad_s = cast(grad_s, dtype)
                tl.store(logits + head * T + start + place_t, grad_s, mask=inside_part)
                grad_normal = dot(grad_s, key, grad_normal)

    # Loaded again rather than held in registers through the loop.
    tile = load_block(x, rows, channels, stride_n, stride_c, left, C).to(ACCUMULATE)
    tile, inverse = _norm(tile, channels, C, EPS)
    mean = tl.sum(grad_normal, 1) / C
    slope = tl.sum(grad_normal * tile, 1) / C
    grad_tile = (grad_normal - mean[:, None] - tile * slope[:, None]) * inverse[:, None]
    grad_tile += load_block(grad, rows, channels, C, 1, left, C).to(ACCUMULATE)
    tl.store(grad_x + place, cast(grad_tile, grad_x.dtype.element_ty), mask=inside)


class _Tile(NamedTuple):
    """BLOCK_N, BLOCK_C and launch options of one kernel."""

    tokens: int
    channels: int
    warps: int
    stages: int


# Capability, the largest that is not above the chip's: (forward, backward). None of these spills; `make
# kernels-aot` shows it. Chips with 99 KiB of shared memory cannot load ahead in the backward.
_AHEAD, _IN_TURN = _Tile(32, 64, 8, 2), _Tile(32, 64, 8, 1)
TILES = {
    80: (_AHEAD, _AHEAD),
    86: (_AHEAD, _IN_TURN),
    87: (_AHEAD, _AHEAD),
    89: (_AHEAD, _IN_TURN),
    90: (_AHEAD, _AHEAD),
    120: (_AHEAD, _IN_TURN),
}


def _constants(
    heads: int, channels: int, prompt: int, dtype: torch.dtype, chip: int, *, backward: bool
) -> dict[str, Any]:
    """Constants and launch options of a kernel."""
    name = f"adapter_cross_attention {'backward' if backward else 'forward'}"
    tile = tile_of(name, chip, TILES[max(known for known in TILES if known <= chip)][backward])
    block = max(32, triton.next_power_of_2(prompt))  # 16 spills in the backward
    if block > LONGEST_TILE:
        wide = backward or chip // 10 in (9, 10)  # elsewhere 64 spill in the forward, there 32
        block = LONGEST_TILE if wide else 32
    constants = {
        "H": heads,
        "C": channels,
        "EPS": _EPS,
        "BLOCK_N": tile.tokens,
        "BLOCK_T": block,
        "ONE_TILE": prompt <= LONGEST_TILE,
        "WHOLE_C": max(16, triton.next_power_of_2(channels)),
        "ACCUMULATE": tl.float64 if dtype == torch.float64 else tl.float32,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }
    return constants if backward else {**constants, "BLOCK_C": tile.channels}


def _adapter_constants(width: int) -> dict[str, Any]:
    """Those of the adapters in the forward kernel; a width of 0 is none."""
    return {"R": width, "BLOCK_R": max(16, triton.next_power_of_2(width)), "ADAPTERS": width > 0}


@torch.library.custom_op(
    "sam3i_edge::adapter_cross_attention",
    mutates_args=(),
    schema="(Tensor x, Tensor keys, Tensor offsets, Tensor values, Tensor? gates, Tensor[] weights) "
    "-> Tensor[]",
)
def adapter_cross_attention_op(
    x: torch.Tensor,
    keys: torch.Tensor,
    offsets: torch.Tensor,
    values: torch.Tensor,
    gates: torch.Tensor | None,
    weights: Sequence[torch.Tensor],
) -> list[torch.Tensor]:
    """The forward kernel on a folded prompt: y and z, or y alone where there are no gates and weights.

    Keys, values and weights have one dtype, that of the products.
    """
    batch, tokens, channels = x.shape
    heads, prompt = offsets.shape[1:]
    keys, offsets, values = keys.contiguous(), offsets.contiguous(), values.contiguous()
    constants = _constants(heads, channels, prompt, keys.dtype, capability(x.device), backward=False)
    constants |= _adapter_constants(weights[6].shape[0] if weights else 0)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    z, adapters = y, [offsets] * 13
    if gates is not None:
        z, adapters = torch.empty_like(y), [tensor.contiguous() for tensor in (gates, *weights)]
    launch(
        _cross_attention_kernel, (triton.cdiv(tokens, constants["BLOCK_N"]), batch),
        x, y, z, keys, offsets, values, *adapters, *x.stride(), tokens, prompt, **constants,
    )  # fmt: skip
    return [y] if gates is None else [y, z]


@torch.library.custom_op(
    "sam3i_edge::adapter_cross_attention_backward",
    mutates_args=(),
    schema="(Tensor x, Tensor grad, Tensor keys, Tensor offsets, Tensor values, bool prompt) -> Tensor[]",
)
def _backward_op(
    x: torch.Tensor,
    grad: torch.Tensor,
    keys: torch.Tensor,
    offsets: torch.Tensor,
    values: torch.Tensor,
    prompt: bool,
) -> list[torch.Tensor]:
    """From the gradient of y that of x, and those of keys, offsets and values where `prompt` wants them."""
    batch, tokens, channels = x.shape
    heads, length = offsets.shape[1:]
    grad, keys, offsets, values = (tensor.contiguous() for tensor in (grad, keys, offsets, values))
    constants = _constants(heads, channels, length, keys.dtype, capability(x.device), backward=True)
    tiles = triton.cdiv(tokens, constants["BLOCK_N"])
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    normals = torch.empty(x.shape, dtype=keys.dtype, device=x.device)
    softmax = torch.empty(batch, tokens, heads * length, dtype=keys.dtype, device=x.device)
    logits = torch.empty_like(softmax)
    sums = torch.empty(batch, tiles, heads, length, dtype=offsets.dtype, device=x.device)
    launch(
        _cross_attention_backward_kernel, (tiles, batch),
        x, grad, grad_x, normals, softmax, logits, sums, keys, offsets, values,
        *x.stride(), tokens, length, **constants,
    )  # fmt: skip
    if not prompt:
        return [grad_x]
    grad_keys = torch.bmm(logits.transpose(1, 2), normals).view(keys.shape)
    grad_values = torch.bmm(softmax.transpose(1, 2), grad.to(keys.dtype)).view(values.shape)
    return [grad_x, grad_keys, sums.sum(1), grad_values]


@adapter_cross_attention_op.register_fake
def _(x, keys, offsets, values, gates, weights):
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(1 if gates is None else 2)]


@_backward_op.register_fake
def _(x, grad, keys, offsets, values, prompt):
    wanted = (x, keys, offsets, values) if prompt else (x,)
    return [torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in wanted]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
    x, keys, offsets, values, gates, weights = inputs
    ctx.save_for_backward(x, keys, offsets, values, *(() if gates is None else (output[0], gates, *weights)))


def _gradients(ctx: Any, grads: list[torch.Tensor]) -> tuple[Any, ...]:
    x, keys, offsets, values, *rest = ctx.saved_tensors
    grad, of_weights = grads[0], list[torch.Tensor | None]()
    if rest:
        y, gates, *weights = rest
        found = adapter_mlp_backward_op(y, grads[1], grad, gates, weights, any(ctx.needs_input_grad[5]))
        grad, of_weights = found[0], found[1:] or [None] * len(weights)
    found = _backward_op(x, grad, keys, offsets, values, any(ctx.needs_input_grad[1:4]))
    return found[0], *(found[1:] or (None, None, None)), None, of_weights


adapter_cross_attention_op.register_autograd(_gradients, setup_context=_keep)


def aot_cases(capability: int) -> list[AotCase]:
    """The official size, 256 channels, 8 heads, a bottleneck of 64; prompts in one tile and in two."""
    cases = []
    for dtype, prompt in (*((dtype, 33) for dtype in POINTERS), (torch.float16, 32), (torch.float16, 82)):
        for kernel, backward in ((_cross_attention_kernel, False), (_cross_attention_backward_kernel, True)):
            constants = _constants(8, 256, prompt, dtype, capability, backward=backward)
            constants |= {"stride_c": 1} if backward else {"stride_c": 1, **_adapter_constants(64)}
            warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
            signature = {**aot_signature(kernel, dtype, constants), "T": "i32"}
            direction = "backward" if backward else "forward"
            name = f"adapter_cross_attention {direction} {str(dtype)[6:]} T {prompt}"
            cases.append(AotCase(name, kernel, signature, constants, warps, stages))
    return cases
