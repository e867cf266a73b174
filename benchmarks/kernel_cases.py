"""The kernels beside what they could be replaced by: operands at the model's sizes, and a check of answers.

`scripts/gpu_day.py` times them on a GPU. Nothing here needs more than torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention

from sam3i_edge.kernels.adapter_cross_attention import (
    adapter_cross_attention,
    adapter_cross_attention_reference,
)
from sam3i_edge.kernels.adapter_mlp import adapter_mlp, adapter_mlp_reference
from sam3i_edge.kernels.box_attention import box_attention, box_attention_reference
from sam3i_edge.kernels.int4_linear import GROUP, int4_linear, pack_int4
from sam3i_edge.kernels.int8_linear import int8_linear

TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 2e-2}  # relative, in the norm
QUANTIZED_TOLERANCE = 2e-2  # the float layer does not round its input to 8 bits

Outputs = torch.Tensor | tuple[torch.Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the operands; the defaults are the official model's at 1008 px.

    Attributes:
        side: rows and columns of image tokens.
        channels, heads, width: of the stream, of attention, of the adapters' bottleneck.
        prompt, queries: tokens.
        linear: rows, inputs and outputs of linear layers: a ViT MLP, a fusion layer, the decoder's queries,
            an instruction.
        backend: of torch.compile.
    """

    side: int = 72
    channels: int = 256
    heads: int = 8
    width: int = 64
    prompt: int = 33
    queries: int = 200
    linear: tuple[tuple[int, int, int], ...] = (
        (5184, 1024, 4736),
        (5184, 256, 2048),
        (201, 256, 2048),
        (32, 1024, 4096),
    )
    backend: str = "inductor"

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, compiled for these sizes alone."""
        return torch.compile(function, dynamic=False, backend=self.backend)


OFFICIAL = Sizes()
TINY = Sizes(
    side=4, channels=64, heads=2, width=16, prompt=9, queries=7, linear=((3, 64, 48),), backend="eager"
)


@dataclass(frozen=True)
class Case:
    """One operator on one set of operands.

    Attributes:
        operands: what gets a gradient.
        kernel: the fused operator, of these operands.
        reference: its definition.
        floor: bytes that a forward has to move.
        rivals: other implementations by name, beside the reference in eager mode.
    """

    operands: list[torch.Tensor]
    kernel: Callable[..., Outputs]
    reference: Callable[..., Outputs]
    floor: int
    rivals: dict[str, Callable[..., Outputs]]

    def contenders(self) -> dict[str, Callable[..., Outputs]]:
        """All implementations by name, the kernel first."""
        return {"Triton": self.kernel, "eager": self.reference, **self.rivals}


def _normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(*shape) * scale + shift


def _adapter(channels: int, width: int, *batch: int) -> list[torch.Tensor]:
    return [
        _normal(*batch, width, channels, scale=channels**-0.5),
        _normal(*batch, width, scale=0.1),
        _normal(*batch, width, scale=0.1, shift=1),
        _normal(*batch, width, scale=0.1),
        _normal(*batch, channels, width, scale=width**-0.5),
        _normal(*batch, channels, scale=0.1),
    ]


def adapter_mlp_case(batch: int, dtype: torch.dtype, device: str, sizes: Sizes = OFFICIAL) -> Case:
    """The adapters of one fusion layer, level complex."""
    tokens, channels, width = sizes.side**2, sizes.channels, sizes.width
    operands = [
        _normal(batch, tokens, channels),
        *_adapter(channels, width, batch),
        *_adapter(channels, width),
    ]
    gates = torch.ones(batch, 2, device=device)

    def call(function, *tensors, **options):
        return function(tensors[0], tensors[1:7], tensors[7:], gates.to(tensors[0].dtype), **options)

    return Case(
        [tensor.to(device, dtype).requires_grad_() for tensor in operands],
        lambda *tensors: call(adapter_mlp, *tensors, implementation="triton"),
        lambda *tensors: call(adapter_mlp_reference, *tensors),
        2 * batch * tokens * channels * dtype.itemsize,
        {"torch.compile": sizes.compiled(lambda *tensors: call(adapter_mlp_reference, *tensors))},
    )


def adapter_cross_attention_case(
    batch: int, dtype: torch.dtype, device: str, sizes: Sizes = OFFICIAL
) -> Case:
    """The middle of one fusion layer, a quarter of the prompt masked; eager attends by SDPA, dense bias."""
    tokens, channels, prompt = sizes.side**2, sizes.channels, sizes.prompt
    operands = [_normal(batch, tokens, channels), _normal(batch, prompt, channels)]
    operands += [_normal(channels, scale=0.1, shift=1), _normal(channels, scale=0.1)]
    for _ in range(4):
        operands += [_normal(channels, channels, scale=1.5 * channels**-0.5), _normal(channels, scale=0.1)]
    operands += [*_adapter(channels, sizes.width, batch), *_adapter(channels, sizes.width)]
    gates = torch.ones(batch, 2, device=device)
    bias = torch.zeros(batch, 1, 1, prompt, device=device)
    bias[..., 3 * prompt // 4 :] = -1e4

    def call(function, *tensors, **options):
        pairs = [tensors[i : i + 2] for i in range(2, 12, 2)]
        like = tensors[0].dtype
        adapters = (tensors[12:18], tensors[18:], gates.to(like))
        return function(tensors[0], tensors[1], bias.to(like), *pairs, sizes.heads, adapters, **options)

    def flex(x, tokens, bias, norm, query, key, value, output, heads, adapters):
        h = F.layer_norm(x, norm[0].shape, *norm)
        q, k, v = (
            F.linear(given, *projection).view(*given.shape[:2], heads, -1).transpose(1, 2)
            for given, projection in ((h, query), (tokens, key), (tokens, value))
        )
        attended = flex_attention(q, k, v, lambda score, b, h, i, j: score + bias[b, 0, 0, j])
        y = x + F.linear(attended.transpose(1, 2).flatten(2), *output)
        return y, adapter_mlp_reference(y, *adapters)

    return Case(
        [tensor.to(device, dtype).requires_grad_() for tensor in operands],
        lambda *tensors: call(adapter_cross_attention, *tensors, implementation="triton"),
        lambda *tensors: call(adapter_cross_attention_reference, *tensors),
        3 * batch * tokens * channels * dtype.itemsize,
        {
            "torch.compile": sizes.compiled(
                lambda *tensors: call(adapter_cross_attention_reference, *tensors)
            ),
            "FlexAttention": sizes.compiled(lambda *tensors: call(flex, *tensors)),
        },
    )


def box_attention_case(batch: int, dtype: torch.dtype, device: str, sizes: Sizes = OFFICIAL) -> Case:
    """The image attention of one decoder layer in the layouts of the model; eager is SDPA, dense bias."""
    side, width, heads = sizes.side, sizes.channels // sizes.heads, sizes.heads
    counts = (1 + sizes.queries, side * side, side * side)
    projected = [_normal(batch, count, heads, width) for count in counts]
    factors = [_normal(batch, sizes.queries, side, heads) for _ in range(2)]
    numbers = sum(tensor.numel() for tensor in (*projected, *factors, projected[0]))

    def flex(q, k, v, bias_y, bias_x):
        y, x = F.pad(bias_y, (0, 0, 1, 0)), F.pad(bias_x, (0, 0, 1, 0))

        def boxed(score, b, h, i, j):
            return score + y[b, h, i, j // side] + x[b, h, i, j % side]

        return flex_attention(q, k, v, boxed)

    def products(q, k, v, bias_y, bias_x):
        bias = F.pad((bias_y[..., :, None] + bias_x[..., None, :]).flatten(-2), (0, 0, 1, 0))
        return torch.softmax(q @ k.mT * q.shape[-1] ** -0.5 + bias, -1) @ v

    return Case(
        [
            *(tensor.to(device, dtype).transpose(1, 2).requires_grad_() for tensor in projected),
            *(tensor.to(device, dtype).permute(0, 3, 1, 2).requires_grad_() for tensor in factors),
        ],
        lambda *tensors: box_attention(*tensors, implementation="triton"),
        box_attention_reference,
        numbers * dtype.itemsize,
        {
            "torch.compile": sizes.compiled(box_attention_reference),
            "FlexAttention": sizes.compiled(flex),
            "products and softmax, torch.compile": sizes.compiled(products),
        },
    )


# One row an operator.
CASES = {
    "adapter_mlp": adapter_mlp_case,
    "adapter_cross_attention": adapter_cross_attention_case,
    "box_attention": box_attention_case,
}


def outputs_of(outputs: Outputs) -> tuple[torch.Tensor, ...]:
    """One output or several, as a tuple."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


def worst_error(function: Callable[..., Outputs], case: Case) -> float:
    """Largest relative error of outputs and gradients against the definition in float32, in the norm.

    Tensors that are almost nothing beside the others are measured by a hundredth of the largest.
    """
    exact = [operand.detach().float().requires_grad_() for operand in case.operands]
    expected = outputs_of(case.reference(*exact))
    outputs = outputs_of(function(*case.operands))
    wanted = torch.autograd.grad(expected, exact, [torch.ones_like(t) for t in expected], allow_unused=True)
    found = torch.autograd.grad(
        outputs, case.operands, [torch.ones_like(t) for t in outputs], allow_unused=True
    )
    pairs = [
        (actual, value)
        for actual, value in [*zip(outputs, expected, strict=True), *zip(found, wanted, strict=True)]
        if value is not None
    ]
    least = 1e-2 * max(value.norm().item() for _, value in pairs)
    errors = [(a.float() - value).norm().item() / max(value.norm().item(), least) for a, value in pairs]
    return math.inf if any(math.isnan(error) for error in errors) else max(errors)


def linear_contenders(
    rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: str
) -> dict[str, tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]]:
    """Quantized linear layers with GELU by name, each with the float layer on the same weights."""
    x = _normal(rows, inputs).to(device, dtype)
    bias = _normal(outputs, scale=0.1).to(device)
    integers = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8, device=device)
    nibbles = torch.randint(-8, 8, (outputs, inputs), dtype=torch.int8, device=device)
    scale = torch.full((outputs,), 2.0**-12, device=device)
    scales = torch.full((outputs, inputs // GROUP), 2.0**-8, dtype=torch.float16, device=device)
    packed, input_scale = pack_int4(nibbles), 0.03125
    weight, weight4, float_bias = integers.to(dtype) * 2.0**-12, nibbles.to(dtype) * 2.0**-8, bias.to(dtype)
    return {
        "int8_linear": (
            lambda: int8_linear(x, integers, scale, bias, input_scale, "gelu", implementation="triton"),
            lambda: F.gelu(F.linear(x, weight, float_bias)),
        ),
        "int4_linear": (
            lambda: F.gelu(int4_linear(x, packed, scales, bias, "triton")),
            lambda: F.gelu(F.linear(x, weight4, float_bias)),
        ),
    }
