"""Image attention of the decoder: softmax(Q K^T / sqrt(d) + bias) V, the bias an outer sum of two factors.

bias[q, (i, j)] = bias_y[q, i] + bias_x[q, j] for the image token of row i and column j; the first query,
the presence token, has none.

Source: BoxRPB of Plain DETR (Lin et al. 2023, arXiv:2308.01904) as SAM3's decoder uses it; online softmax
and recomputation as in FlashAttention-2 (Dao 2023, arXiv:2307.08691).

The bias is never written to memory. A tile of keys is a rectangle of the image, BLOCK_I rows by BLOCK_J
columns, so its bias is an outer sum of two small tiles, and its gradients are sums of the logits' gradient
over the columns and over the rows of the rectangle. A strip is BLOCK_J columns of the whole height.

With B images, H heads, T = 1 + Q queries, N = h w keys and e bytes a number, a forward reads B H (T d + 2 N
d + Q (h + w)) e and writes B H T (d e + 4). A dense bias adds B H T N e four times: its sum written, read
and padded, read. At the official sizes (B 1, H 8, Q 200, N 5184, d 32, float16) that is 6.0 MB instead of
73 MB.

- Forward: 1 launch, or 2 where there are too few programs to fill a GPU: then each handles some strips, and
  the second adds them up (5 strips: 1.1 MB of float32 between).
- Backward: 2 launches, and 2 more where there are several strips: the gradients of queries and of bias_y
  are kept by strip in float32 (at the official sizes 3.3 MB) and added up in order. Keys and values are
  read twice and their gradients written once: 25 MB in all.

Deterministic: no atomics, every sum in a fixed order. The order depends on the sizes, batch size included,
and on the compute capability.

One file, though long: definition, kernels and gradient are read side by side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from sam3i_edge.kernels._dispatch import Implementation, capability, check, launch, tile_of, use_triton
from sam3i_edge.kernels._triton import AotCase, cast, dot, jit, tl

_WIDEST_HEAD = 64  # channels; more do not fit the tiles below
_MOST_HEADS = 65535  # of all samples: the second dimension of a CUDA grid
_MERGE_ROWS, _SUM_BLOCK = 16, 1024
_ENOUGH_PROGRAMS = 256  # of the forward: two for each multiprocessor of the largest GPUs


def box_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias_y: torch.Tensor,
    bias_x: torch.Tensor,
    implementation: Implementation = "auto",
) -> torch.Tensor:
    """Attention of queries to image tokens under a box bias. Differentiable in all five tensors.

    Args:
        q: [B, H, 1 + Q, d], the presence token first.
        k: [B, H, h w, d], image tokens in reading order.
        v: [B, H, h w, d].
        bias_y: [B, H, Q, h], finite, added to the logits of image row i.
        bias_x: [B, H, Q, w], finite, added to the logits of image column j.
        implementation: "auto" for the kernel on a GPU and the reference elsewhere, or one of the two by name.

    Returns:
        [B, H, 1 + Q, d] in the dtype of `q`. Gradients do not flow through gradients.

    Raises:
        ValueError: shapes, dtypes or devices disagree, or the kernel was asked for and cannot run.
    """
    tensors = {"q": q, "k": k, "v": v, "bias_y": bias_y, "bias_x": bias_x}
    forms = ("[B, H, T, d]", "[B, H, N, d]", "[B, H, N, d]", "[B, H, Q, h]", "[B, H, Q, w]")
    sizes = check("box_attention", dict(zip(tensors, zip(tensors.values(), forms, strict=True), strict=True)))
    if sizes["T"] != sizes["Q"] + 1 or sizes["N"] != sizes["h"] * sizes["w"] or not sizes["N"]:
        raise ValueError(
            f"box_attention: got {sizes['T']} queries with bias for {sizes['Q']}, and {sizes['N']} keys with "
            f"bias for {sizes['h']} rows and {sizes['w']} columns; want 1 + Q queries, the presence token "
            "first, and h w keys, at least one"
        )
    limits = ""
    if sizes["d"] > _WIDEST_HEAD:
        limits = f"heads of {sizes['d']} channels, at most {_WIDEST_HEAD} fit"
    elif not q.dtype == k.dtype == v.dtype:
        limits = "q, k and v of several dtypes"
    elif sizes["B"] * sizes["H"] > _MOST_HEADS:
        limits = f"more than {_MOST_HEADS} heads of all samples together"
    if use_triton("box_attention", tensors, implementation, limits=limits):
        return box_attention_op(q, k, v, bias_y, bias_x)[0]
    return box_attention_reference(q, k, v, bias_y, bias_x)


def box_attention_reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias_y: torch.Tensor, bias_x: torch.Tensor
) -> torch.Tensor:
    """The definition. Exporters trace it and tests compare against it."""
    bias = (bias_y[..., :, None] + bias_x[..., None, :]).flatten(-2)  # [B, H, Q, N]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=F.pad(bias, (0, 0, 1, 0)))


@jit
def _load_rows(ptr, rows, size, stride, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """[rows, BLOCK_D], zeros from row `size` and channel HEAD_DIM on."""
    channels = tl.arange(0, BLOCK_D)
    mask = (rows < size)[:, None] & (channels < HEAD_DIM)[None, :]
    return tl.load(ptr + rows.to(tl.int64)[:, None] * stride + channels[None, :], mask=mask, other=0.0)


@jit
def _load_rectangle(
    ptr, i, j, grid_h, grid_w, stride,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    """Image tokens from row i and column j on, [BLOCK_I * BLOCK_J, BLOCK_D]; zeros outside of the image."""
    tokens = tl.arange(0, BLOCK_I * BLOCK_J)
    channels = tl.arange(0, BLOCK_D)
    inside = (i + tokens // BLOCK_J < grid_h) & (j + tokens % BLOCK_J < grid_w)
    mask = inside[:, None] & (channels < HEAD_DIM)[None, :]
    ptr += (i * grid_w + j).to(tl.int64) * stride
    offsets = (tokens // BLOCK_J * grid_w + tokens % BLOCK_J) * stride
    return tl.load(ptr + offsets[:, None] + channels[None, :], mask=mask, other=0.0)


@jit
def _load_bias(ptr, rows, tokens, cells, size, strides, ACCUMULATE: tl.constexpr):
    """One factor in units of log 2, [rows, cells]: 0 for the presence token, -inf outside of the image."""
    boxed = (rows > 0) & (rows < tokens)
    inside = (cells < size)[None, :]
    ptr += (rows.to(tl.int64)[:, None] - 1) * strides[2]
    bias = tl.load(ptr + cells[None, :] * strides[3], mask=boxed[:, None] & inside, other=0.0)
    return tl.where(inside, bias.to(ACCUMULATE) * 1.4426950408889634, float("-inf"))


@jit
def _box_attention_kernel(
    q_ptr, k_ptr, v_ptr, y_ptr, x_ptr, out_ptr, lse_ptr,
    q_strides, k_strides, v_strides, y_strides, x_strides,
    heads, tokens, grid_h, grid_w, split_strips,
    SCALE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """Output and log2-sum-exp2 of BLOCK_Q queries over `split_strips` strips."""
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = (tl.program_id(1) % heads).to(tl.int64)
    split = tl.program_id(2).to(tl.int64)
    k_ptr += batch * k_strides[0] + head * k_strides[1]
    v_ptr += batch * v_strides[0] + head * v_strides[1]
    y_ptr += batch * y_strides[0] + head * y_strides[1]
    x_ptr += batch * x_strides[0] + head * x_strides[1]
    rows = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    q_ptr += batch * q_strides[0] + head * q_strides[1]
    q = _load_rows(q_ptr, rows, tokens, q_strides[2], HEAD_DIM, BLOCK_D)
    greatest = tl.full([BLOCK_Q], float("-inf"), ACCUMULATE)
    total = tl.zeros([BLOCK_Q], ACCUMULATE)
    out = tl.zeros([BLOCK_Q, BLOCK_D], ACCUMULATE)
    first = tl.program_id(2) * split_strips
    for strip in range(first, tl.minimum(first + split_strips, tl.cdiv(grid_w, BLOCK_J))):
        j = strip * BLOCK_J
        columns = j + tl.arange(0, BLOCK_J)
        x = _load_bias(x_ptr, rows, tokens, columns, grid_w, x_strides, ACCUMULATE)
        for i in range(0, grid_h, BLOCK_I):
            k = _load_rectangle(
                k_ptr, i, j, grid_h, grid_w, k_strides[2], HEAD_DIM, BLOCK_D, BLOCK_I, BLOCK_J
            )
            v = _load_rectangle(
                v_ptr, i, j, grid_h, grid_w, v_strides[2], HEAD_DIM, BLOCK_D, BLOCK_I, BLOCK_J
            )
            y = _load_bias(y_ptr, rows, tokens, i + tl.arange(0, BLOCK_I), grid_h, y_strides, ACCUMULATE)
            bias = tl.reshape(y[:, :, None] + x[:, None, :], [BLOCK_Q, BLOCK_I * BLOCK_J])
            logits = dot(q, tl.trans(k)) * (SCALE * 1.4426950408889634) + bias
            new = tl.maximum(greatest, tl.max(logits, 1))
            p = tl.exp2(logits - new[:, None])
            keep = tl.exp2(greatest - new)
            total = total * keep + tl.sum(p, 1)
            out = dot(cast(p, v.dtype), v, out * keep[:, None])
            greatest = new
    channels = tl.arange(0, BLOCK_D)
    offsets = (
        (split * tl.num_programs(1) + batch * heads) * tokens + rows[:, None] * heads + head
    ) * HEAD_DIM
    mask = (rows < tokens)[:, None] & (channels < HEAD_DIM)[None, :]
    out = cast(out / total[:, None], out_ptr.dtype.element_ty)
    tl.store(out_ptr + offsets + channels[None, :], out, mask=mask)
    lse_ptr += (split * tl.num_programs(1) + tl.program_id(1)) * tokens
    tl.store(lse_ptr + rows, greatest + tl.log2(total), mask=rows < tokens)


@jit
def _box_attention_merge_kernel(
    parts_ptr, parts_lse_ptr, out_ptr, lse_ptr, heads, tokens, splits,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """Adds up the outputs of the splits, each weighed by the share of the softmax that it saw."""
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    rows = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    channels = tl.arange(0, BLOCK_D)
    mask = (rows < tokens)[:, None] & (channels < HEAD_DIM)[None, :]
    offsets = (batch * heads * tokens + rows[:, None] * heads + head) * HEAD_DIM + channels[None, :]
    lse_offsets = tl.program_id(1).to(tl.int64) * tokens + rows
    part = tl.num_programs(1).to(tl.int64) * tokens  # rows of one split
    greatest = tl.full([BLOCK_Q], float("-inf"), ACCUMULATE)
    total = tl.zeros([BLOCK_Q], ACCUMULATE)
    out = tl.zeros([BLOCK_Q, BLOCK_D], ACCUMULATE)
    for split in range(splits):
        lse = tl.load(parts_lse_ptr + split * part + lse_offsets, mask=rows < tokens, other=0.0)
        seen = tl.load(parts_ptr + split * part * HEAD_DIM + offsets, mask=mask, other=0.0)
        new = tl.maximum(greatest, lse)
        keep = tl.exp2(greatest - new)
        share = tl.exp2(lse - new)
        total = total * keep + share
        out = out * keep[:, None] + seen * share[:, None]
        greatest = new
    tl.store(out_ptr + offsets, cast(out / total[:, None], out_ptr.dtype.element_ty), mask=mask)
    tl.store(lse_ptr + lse_offsets, greatest + tl.log2(total), mask=rows < tokens)


@jit
def _box_attention_grad_queries_kernel(
    q_ptr, k_ptr, v_ptr, y_ptr, x_ptr, out_ptr, lse_ptr, grad_ptr,
    delta_ptr, grad_q_ptr, grad_y_ptr, grad_x_ptr,
    q_strides, k_strides, v_strides, y_strides, x_strides, grad_strides,
    heads, tokens, grid_h, grid_w,
    SCALE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """Gradients of BLOCK_Q queries and their bias from one strip; of bias_x they are complete."""
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = (tl.program_id(1) % heads).to(tl.int64)
    strip = tl.program_id(2)
    k_ptr += batch * k_strides[0] + head * k_strides[1]
    v_ptr += batch * v_strides[0] + head * v_strides[1]
    y_ptr += batch * y_strides[0] + head * y_strides[1]
    x_ptr += batch * x_strides[0] + head * x_strides[1]
    rows = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    boxed = ((rows > 0) & (rows < tokens))[:, None]
    channels = tl.arange(0, BLOCK_D)
    mask = (rows < tokens)[:, None] & (channels < HEAD_DIM)[None, :]
    q_ptr += batch * q_strides[0] + head * q_strides[1]
    grad_ptr += batch * grad_strides[0] + head * grad_strides[1]
    q = _load_rows(q_ptr, rows, tokens, q_strides[2], HEAD_DIM, BLOCK_D)
    grad = _load_rows(grad_ptr, rows, tokens, grad_strides[2], HEAD_DIM, BLOCK_D)
    offsets = (batch * heads * tokens + rows[:, None] * heads + head) * HEAD_DIM + channels[None, :]
    out = tl.load(out_ptr + offsets, mask=mask, other=0.0)
    lse_offsets = tl.program_id(1).to(tl.int64) * tokens + rows
    lse = tl.load(lse_ptr + lse_offsets, mask=rows < tokens, other=0.0)
    delta = tl.sum(grad.to(ACCUMULATE) * out.to(ACCUMULATE), 1)
    if strip == 0:
        tl.store(delta_ptr + lse_offsets, delta, mask=rows < tokens)
    j = strip * BLOCK_J
    columns = j + tl.arange(0, BLOCK_J)
    x = _load_bias(x_ptr, rows, tokens, columns, grid_w, x_strides, ACCUMULATE)
    grad_x = tl.zeros([BLOCK_Q, BLOCK_J], ACCUMULATE)
    grad_q = tl.zeros([BLOCK_Q, BLOCK_D], ACCUMULATE)
    bias_rows = tl.program_id(1).to(tl.int64) * (tokens - 1) + rows[:, None] - 1
    grad_y_ptr += strip.to(tl.int64) * tl.num_programs(1) * (tokens - 1) * grid_h
    for i in range(0, grid_h, BLOCK_I):
        image_rows = i + tl.arange(0, BLOCK_I)
        k = _load_rectangle(k_ptr, i, j, grid_h, grid_w, k_strides[2], HEAD_DIM, BLOCK_D, BLOCK_I, BLOCK_J)
        v = _load_rectangle(v_ptr, i, j, grid_h, grid_w, v_strides[2], HEAD_DIM, BLOCK_D, BLOCK_I, BLOCK_J)
        y = _load_bias(y_ptr, rows, tokens, image_rows, grid_h, y_strides, ACCUMULATE)
        bias = tl.reshape(y[:, :, None] + x[:, None, :], [BLOCK_Q, BLOCK_I * BLOCK_J])
        logits = dot(q, tl.trans(k)) * (SCALE * 1.4426950408889634) + bias
        p = tl.exp2(logits - lse[:, None])
        grad_logits = p * (dot(grad, tl.trans(v)) - delta[:, None])
        grad_q = dot(cast(grad_logits, k.dtype), k, grad_q)
        rectangle = tl.reshape(grad_logits, [BLOCK_Q, BLOCK_I, BLOCK_J])
        grad_x += tl.sum(rectangle, 1)
        grad_y = cast(tl.sum(rectangle, 2), grad_y_ptr.dtype.element_ty)
        tl.store(
            grad_y_ptr + bias_rows * grid_h + image_rows[None, :],
            grad_y,
            mask=boxed & (image_rows < grid_h)[None, :],
        )
    grad_x = cast(grad_x, grad_x_ptr.dtype.element_ty)
    tl.store(
        grad_x_ptr + bias_rows * grid_w + columns[None, :], grad_x, mask=boxed & (columns < grid_w)[None, :]
    )
    grad_q_ptr += strip.to(tl.int64) * tl.num_programs(1) * tokens * HEAD_DIM
    tl.store(grad_q_ptr + offsets, cast(grad_q * SCALE, grad_q_ptr.dtype.element_ty), mask=mask)


@jit
def _box_attention_grad_keys_kernel(
    q_ptr, k_ptr, v_ptr, y_ptr, x_ptr, lse_ptr, delta_ptr, grad_ptr, grad_k_ptr, grad_v_ptr,
    q_strides, k_strides, v_strides, y_strides, x_strides, grad_strides,
    heads, tokens, grid_h, grid_w,
    SCALE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """Gradients of the keys and values of one rectangle, from all queries; logits are [keys, queries]."""
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = (tl.program_id(1) % heads).to(tl.int64)
    height = tl.cdiv(grid_h, BLOCK_I)
    i = tl.program_id(0) % height * BLOCK_I
    j = tl.program_id(0) // height * BLOCK_J
    q_ptr += batch * q_strides[0] + head * q_strides[1]
    grad_ptr += batch * grad_strides[0] + head * grad_strides[1]
    y_ptr += batch * y_strides[0] + head * y_strides[1]
    x_ptr += batch * x_strides[0] + head * x_strides[1]
    lse_ptr += tl.program_id(1).to(tl.int64) * tokens
    delta_ptr += tl.program_id(1).to(tl.int64) * tokens
    k_ptr += batch * k_strides[0] + head * k_strides[1]
    v_ptr += batch * v_strides[0] + head * v_strides[1]
    k = _load_rectangle(k_ptr, i, j, grid_h, grid_w, k_strides[2], HEAD_DIM, BLOCK_D, BLOCK_I, BLOCK_J)
    v = _load_rectangle(v_ptr, i, j, grid_h, grid_w, v_strides[2], HEAD_DIM, BLOCK_D, BLOCK_I, BLOCK_J)
    image_rows = i + tl.arange(0, BLOCK_I)
    columns = j + tl.arange(0, BLOCK_J)
    grad_k = tl.zeros([BLOCK_I * BLOCK_J, BLOCK_D], ACCUMULATE)
    grad_v = tl.zeros([BLOCK_I * BLOCK_J, BLOCK_D], ACCUMULATE)
    for start in range(0, tokens, BLOCK_Q):
        rows = start + tl.arange(0, BLOCK_Q)
        q = _load_rows(q_ptr, rows, tokens, q_strides[2], HEAD_DIM, BLOCK_D)
        grad = _load_rows(grad_ptr, rows, tokens, grad_strides[2], HEAD_DIM, BLOCK_D)
        lse = tl.load(lse_ptr + rows, mask=rows < tokens, other=0.0)
        delta = tl.load(delta_ptr + rows, mask=rows < tokens, other=0.0)
        y = tl.trans(_load_bias(y_ptr, rows, tokens, image_rows, grid_h, y_strides, ACCUMULATE))
        x = tl.trans(_load_bias(x_ptr, rows, tokens, columns, grid_w, x_strides, ACCUMULATE))
        bias = tl.reshape(y[:, None, :] + x[None, :, :], [BLOCK_I * BLOCK_J, BLOCK_Q])
        logits = dot(k, tl.trans(q)) * (SCALE * 1.4426950408889634) + bias
        p = tl.exp2(logits - lse[None, :])
        grad_v = dot(cast(p, grad.dtype), grad, grad_v)
        grad_logits = p * (dot(v, tl.trans(grad)) - delta[None, :])
        grad_k = dot(cast(grad_logits, q.dtype), q, grad_k)
    inside = tl.arange(0, BLOCK_I * BLOCK_J)
    channels = tl.arange(0, BLOCK_D)
    image_row, column = i + inside // BLOCK_J, j + inside % BLOCK_J
    keys = ((batch * grid_h + image_row) * grid_w + column)[:, None]
    offsets = (keys * heads + head) * HEAD_DIM + channels[None, :]
    mask = ((image_row < grid_h) & (column < grid_w))[:, None] & (channels < HEAD_DIM)[None, :]
    tl.store(grad_k_ptr + offsets, cast(grad_k * SCALE, grad_k_ptr.dtype.element_ty), mask=mask)
    tl.store(grad_v_ptr + offsets, cast(grad_v, grad_v_ptr.dtype.element_ty), mask=mask)


@jit
def _box_attention_sum_kernel(parts_ptr, out_ptr, size, parts, BLOCK: tl.constexpr):
    """out[n] = sum of parts[p, n] over p, in the order of p."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(parts_ptr + offsets, mask=offsets < size, other=0.0)
    for _ in range(1, parts):
        parts_ptr += size
        total += tl.load(parts_ptr + offsets, mask=offsets < size, other=0.0)
    tl.store(out_ptr + offsets, cast(total, out_ptr.dtype.element_ty), mask=offsets < size)


class _Tile(NamedTuple):
    """How a kernel cuts its work: BLOCK_Q queries by BLOCK_I rows and BLOCK_J columns of the image."""

    queries: int
    rows: int
    columns: int
    warps: int
    stages: int


class _Tiles(NamedTuple):
    forward: _Tile
    grad_queries: _Tile
    grad_keys: _Tile


def _tiles(chip: int, dtype: torch.dtype, head_dim: int) -> _Tiles:
    """What was fastest on such a chip, or what `_table` has for it."""
    table = _table(chip, dtype, head_dim)
    if dtype not in (torch.float16, torch.bfloat16):
        return table
    size = 32 if head_dim <= 32 else _WIDEST_HEAD
    names = (f"box_attention {name}, d to {size}" for name in table._fields)
    return _Tiles(*(tile_of(name, chip, tile) for name, tile in zip(names, table, strict=True)))


def _table(chip: int, dtype: torch.dtype, head_dim: int) -> _Tiles:
    """The configuration for a compute capability: the largest tried that spills nothing there.

    All have 16 columns: 72 are 4.5 of them, so 10 % of the work is on columns outside of the image.
    """
    narrow = head_dim <= 32
    if dtype not in (torch.float16, torch.bfloat16):
        small = _Tile(32, 2, 16, 4, 2)
        return _Tiles(small, small if narrow else _Tile(32, 2, 16, 8, 2), small)
    if chip // 10 in (9, 10):  # products read shared memory, not registers
        return _Tiles(*3 * [_Tile(64, 4, 16, 4, 3)])
    thin = _Tile(64, 2, 16, 4, 2)
    if narrow:
        return _Tiles(_Tile(64, 4, 16, 4, 2), thin, _Tile(32, 4, 16, 4, 2))
    return _Tiles(thin, thin, thin)


def _constants(tile: _Tile, head_dim: int, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "SCALE": head_dim**-0.5,
        "HEAD_DIM": head_dim,
        "BLOCK_D": max(16, 1 << (head_dim - 1).bit_length()),
        "BLOCK_Q": tile.queries,
        "BLOCK_I": tile.rows,
        "BLOCK_J": tile.columns,
        "ACCUMULATE": tl.float64 if dtype == torch.float64 else tl.float32,
    }


def _rows_in_memory(x: torch.Tensor) -> torch.Tensor:
    """The tensor itself when its channels lie side by side, which is all that the kernels ask for."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _like_projection(x: torch.Tensor, dtype: torch.dtype, *parts: int) -> torch.Tensor:
    """Uninitialised [*parts, B, n, H, d] for x [B, H, n, d]: heads merge and split without a copy."""
    batch, heads, rows, width = x.shape
    return x.new_empty((*parts, batch, rows, heads, width), dtype=dtype)


@torch.library.custom_op(
    "sam3i_edge::box_attention",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor bias_y, Tensor bias_x) -> (Tensor, Tensor)",
)
def box_attention_op(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias_y: torch.Tensor, bias_x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`box_attention` by the kernels, [B, H, 1 + Q, d], and log2-sum-exp2 of the logits, [B, H, 1 + Q]."""
    q, k, v = _rows_in_memory(q), _rows_in_memory(k), _rows_in_memory(v)
    batch, heads, tokens, head_dim = q.shape
    grid_h, grid_w = bias_y.shape[-1], bias_x.shape[-1]
    tile = _tiles(capability(q.device), q.dtype, head_dim).forward
    constants = _constants(tile, head_dim, q.dtype)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    strips, blocks = -(-grid_w // tile.columns), -(-tokens // tile.queries)
    wanted = min(strips, max(1, _ENOUGH_PROGRAMS // max(1, blocks * batch * heads)))
    split_strips = -(-strips // wanted)
    splits = -(-strips // split_strips)
    out = _like_projection(q, q.dtype)
    lse = q.new_empty((batch, heads, tokens), dtype=wide)
    parts, parts_lse = out, lse
    if splits > 1:
        parts = _like_projection(q, wide, splits)
        parts_lse = q.new_empty((splits, *lse.shape), dtype=wide)
    launch(
        _box_attention_kernel,
        (blocks, batch * heads, splits),
        *(q, k, v, bias_y, bias_x, parts, parts_lse),
        *(x.stride() for x in (q, k, v, bias_y, bias_x)),
        *(heads, tokens, grid_h, grid_w, split_strips),
        **constants,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    if splits > 1:
        launch(
            _box_attention_merge_kernel,
            (-(-tokens // _MERGE_ROWS), batch * heads),
            *(parts, parts_lse, out, lse, heads, tokens, splits),
            HEAD_DIM=head_dim,
            BLOCK_D=constants["BLOCK_D"],
            BLOCK_Q=_MERGE_ROWS,
            ACCUMULATE=constants["ACCUMULATE"],
        )
    return out.transpose(1, 2), lse


@torch.library.custom_op(
    "sam3i_edge::box_attention_backward",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor bias_y, Tensor bias_x, Tensor out, Tensor lse, "
    "Tensor grad) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward_op(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias_y: torch.Tensor,
    bias_x: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    grad: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Gradients of the five inputs; `out` and `lse` are what the forward gave."""
    q, k, v = _rows_in_memory(q), _rows_in_memory(k), _rows_in_memory(v)
    out = out.transpose(1, 2).contiguous()
    grad = _rows_in_memory(grad)
    batch, heads, tokens, head_dim = q.shape
    grid_h, grid_w = bias_y.shape[-1], bias_x.shape[-1]
    tiles = _tiles(capability(q.device), q.dtype, head_dim)
    strides = [x.stride() for x in (q, k, v, bias_y, bias_x, grad)]
    tile = tiles.grad_queries
    strips = -(-grid_w // tile.columns)
    grad_q, delta = _like_projection(q, q.dtype), torch.empty_like(lse)
    grad_y, grad_x = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (bias_y, bias_x))
    parts_q, parts_y = grad_q, grad_y
    if strips > 1:
        parts_q = _like_projection(q, lse.dtype, strips)
        parts_y = grad_y.new_empty((strips, *grad_y.shape), dtype=lse.dtype)
    launch(
        _box_attention_grad_queries_kernel,
        (-(-tokens // tile.queries), batch * heads, strips),
        *(q, k, v, bias_y, bias_x, out, lse, grad, delta, parts_q, parts_y, grad_x),
        *strides,
        *(heads, tokens, grid_h, grid_w),
        **_constants(tile, head_dim, q.dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    if strips > 1:
        for parts, total in ((parts_q, grad_q), (parts_y, grad_y)):
            blocks = -(-total.numel() // _SUM_BLOCK)
            launch(
                _box_attention_sum_kernel,
                (blocks,),
                *(parts, total, total.numel(), strips),
                BLOCK=_SUM_BLOCK,
            )
    grad_k, grad_v = _like_projection(k, k.dtype), _like_projection(v, v.dtype)
    tile = tiles.grad_keys
    launch(
        _box_attention_grad_keys_kernel,
        (-(-grid_h // tile.rows) * -(-grid_w // tile.columns), batch * heads),
        *(q, k, v, bias_y, bias_x, lse, delta, grad, grad_k, grad_v),
        *strides,
        *(heads, tokens, grid_h, grid_w),
        **_constants(tile, head_dim, q.dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return grad_q.transpose(1, 2), grad_k.transpose(1, 2), grad_v.transpose(1, 2), grad_y, grad_x


@box_attention_op.register_fake
def _(q, k, v, bias_y, bias_x):
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return _like_projection(q, q.dtype).transpose(1, 2), q.new_empty(q.shape[:3], dtype=wide)


@_backward_op.register_fake
def _(q, k, v, bias_y, bias_x, out, lse, grad):
    projected = (_like_projection(x, x.dtype).transpose(1, 2) for x in (q, k, v))
    return *projected, *(x.new_empty(x.shape) for x in (bias_y, bias_x))


def _keep(ctx: Any, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _gradients(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return _backward_op(*ctx.saved_tensors, grad)


box_attention_op.register_autograd(_gradients, setup_context=_keep)


_AOT_SIZES = (
    ("bf16", torch.bfloat16, 32),
    ("bf16", torch.bfloat16, 64),
    ("fp16", torch.float16, 32),
    ("fp32", torch.float32, 32),
    ("fp32", torch.float32, 64),
)


def aot_cases(capability: int) -> list[AotCase]:
    """The kernels as they are launched on a chip: heads of 32 channels, and of 64, the widest."""
    merge = _Tile(_MERGE_ROWS, 1, 1, 4, 3)
    cases = []
    for name, dtype, head_dim in _AOT_SIZES:
        tiles = _tiles(capability, dtype, head_dim)
        kernels = [
            (_box_attention_kernel, tiles.forward),
            (_box_attention_grad_queries_kernel, tiles.grad_queries),
            (_box_attention_grad_keys_kernel, tiles.grad_keys),
        ]
        if (name, head_dim) == ("bf16", 32):
            kernels += [(_box_attention_merge_kernel, merge), (_box_attention_sum_kernel, merge)]
        for kernel, tile in kernels:
            values = {**_constants(tile, head_dim, dtype), "BLOCK": _SUM_BLOCK}
            constants = {key: value for key, value in values.items() if key in kernel.arg_names}
            signature = {argument: _aot_type(argument, name) for argument in kernel.arg_names}
            label = f"{kernel.__name__.strip('_').removesuffix('_kernel')} {name}, d = {head_dim}"
            cases.append(AotCase(label, kernel, signature, constants, tile.warps, tile.stages))
    return cases


def _aot_type(argument: str, dtype: str) -> Any:
    """Type of a kernel's argument; partial sums are float32, as at the official sizes."""
    if argument.endswith("_strides"):
        return ("i32:16",) * 3 + ("i32",) * (argument in ("y_strides", "x_strides"))
    if argument.isupper():
        return "constexpr"
    if not argument.endswith("_ptr"):
        return "i32"
    wide = argument in ("lse_ptr", "parts_ptr", "parts_lse_ptr", "delta_ptr", "grad_q_ptr", "grad_y_ptr")
    return "*fp32:16" if wide else f"*{dtype}:16"
