from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (registers torch.ops.quantized_decomposed)
from torch.nn import functional as F

from sam3i_edge.kernels.int8_linear import int8_linear, int8_linear_integers

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Rows, inputs, outputs.
SIZES = {"odd": (70, 100, 67), "one": (1, 1, 1), "one row": (1, 64, 33), "whole tiles": (64, 128, 64)}
LARGEST_ERROR = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


class Layer(NamedTuple):
    x: torch.Tensor
    weight: torch.Tensor
    weight_scale: torch.Tensor
    bias: torch.Tensor
    input_scale: float


def random_layer(sizes: tuple[int, int, int] = (5, 40, 7), dtype: torch.dtype = torch.float32) -> Layer:
    rows, inputs, outputs = sizes
    scale = (0.001 + 0.01 * torch.rand(outputs)).half().float()
    return Layer(
        (2 * torch.randn(rows, inputs)).to(dtype),
        torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8),
        scale,
        torch.randn(outputs),
        0.02130126953125,  # exact in float16; a tenth of the inputs is clamped
    )


def exact_integers(x, weight, weight_scale, bias, input_scale) -> torch.Tensor:
    """In Python's integers, from what the operators of torch make of the input."""
    quantized = torch.ops.quantized_decomposed.quantize_per_tensor(x, input_scale, 0, -128, 127, torch.int8)
    steps = [round(b / s) for b, s in zip(bias.tolist(), (weight_scale * input_scale).tolist(), strict=True)]
    rows = [
        [
            sum(a * b for a, b in zip(row, column, strict=True)) + step
            for column, step in zip(weight.tolist(), steps, strict=True)
        ]
        for row in quantized.tolist()
    ]
    return torch.tensor(rows, dtype=torch.int32)


@pytest.fixture(autouse=True)
def _on_device(device):
    with torch.device(device):
        yield


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_integers_are_the_same_bit_for_bit(sizes, dtype, launches):
    layer = random_layer(sizes, dtype)
    expected = exact_integers(*layer)
    assert torch.equal(int8_linear_integers(*layer, implementation="reference"), expected)
    assert not launches
    assert torch.equal(int8_linear_integers(*layer, implementation="triton"), expected)
    assert dict(launches) == {"_int8_linear_kernel": 1}


@pytest.mark.parametrize("implementation", ["reference", "triton"])
def test_rounds_ties_to_even_and_clamps(implementation):
    x = torch.tensor([[-1e9, -64.25, -64.0, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 63.25, 63.75, 1e9]])
    one_hot = torch.eye(12, dtype=torch.int8)
    integers = int8_linear_integers(x, one_hot, torch.ones(12), None, 0.5, implementation)
    assert integers.tolist() == [[-128, -128, -128, -2, -2, 0, 0, 2, 2, 126, 127, 127]]


@pytest.mark.parametrize("implementation", ["reference", "triton"])
def test_quantizes_inputs_as_torch_does(implementation):
    """Near every tie, where x / s and x times 1 / s may round apart."""
    scale = 0.02130126953125
    ties = (torch.arange(-130, 130) + 0.5) * scale
    x = torch.cat([torch.nextafter(ties, ties - 1), ties, torch.nextafter(ties, ties + 1)])[:, None]
    expected = torch.ops.quantized_decomposed.quantize_per_tensor(x, scale, 0, -128, 127, torch.int8)
    one = torch.ones(1, 1, dtype=torch.int8)
    integers = int8_linear_integers(x, one, torch.ones(1), None, scale, implementation)
    assert torch.equal(integers, expected.int())


@pytest.mark.parametrize("implementation", ["reference", "triton"])
def test_rounds_the_bias_to_whole_steps(implementation):
    steps = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 4194304.5, 8388609.0, -(2.0**30) + 64, 0.49999997])
    expected = [0, 2, 2, 0, -2, 4194304, 8388609, -(2**30) + 64, 0]
    zero = torch.zeros(9, 1, dtype=torch.int8)
    integers = int8_linear_integers(torch.zeros(1, 1), zero, torch.ones(9), steps / 4, 0.25, implementation)
    assert integers.tolist() == [expected]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
@pytest.mark.parametrize("with_residual", [False, True], ids=["", "residual"])
def test_output_matches_float64(dtype, activation, with_residual, launches):
    layer = random_layer((20, 70, 35), dtype)
    residual = torch.randn(20, 35).to(dtype) if with_residual else None
    y = exact_integers(*layer).double() * (layer.weight_scale.double() * layer.input_scale)
    expected = {"gelu": F.gelu, "relu": F.relu, None: lambda y: y}[activation](y)
    expected = expected + (residual.double() if with_residual else 0)
    for implementation in ("reference", "triton"):
        out = int8_linear(*layer, activation, residual, implementation)
        assert out.dtype == dtype
        assert (out.double() - expected).abs().max() <= LARGEST_ERROR[dtype] * expected.abs().max()
    assert dict(launches) == {"_int8_linear_kernel": 1}


def test_is_what_exporters_write():
    """The operators that exporters turn into QuantizeLinear, DequantizeLinear and a float linear layer."""
    x, weight, weight_scale, bias, scale = random_layer((9, 50, 11))
    ops = torch.ops.quantized_decomposed
    bias = torch.round(bias / (weight_scale * scale)) * (weight_scale * scale)
    quantized = ops.quantize_per_tensor(x, scale, 0, -128, 127, torch.int8)
    zero = torch.zeros(11, dtype=torch.int64)
    expected = F.linear(
        ops.dequantize_per_tensor(quantized, scale, 0, -128, 127, torch.int8),
        ops.dequantize_per_channel(weight, weight_scale, zero, 0, -127, 127, torch.int8),
        bias,
    )
    out = int8_linear(x, weight, weight_scale, bias, scale, implementation="triton")
    assert (out - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_without_bias():
    x, weight, weight_scale, _, scale = random_layer()
    zero = torch.zeros(7)
    expected = int8_linear(x, weight, weight_scale, zero, scale, implementation="reference")
    assert torch.equal(int8_linear(x, weight, weight_scale, None, scale, implementation="triton"), expected)


def test_non_contiguous_among_nan():
    layer = random_layer((6, 40, 7))
    expected = int8_linear(*layer, residual=torch.ones(6, 7), implementation="reference")
    around = torch.full((8, 42), float("nan"))
    around[1:7, 1:41] = layer.x
    for view in (around[1:7, 1:41], around[1:7, 1:41].T.contiguous().T):
        args = (view, layer.weight.T.contiguous().T, *layer[2:])
        assert not view.is_contiguous()
        out = int8_linear(*args, None, torch.ones(7, 6).T, "triton")
        torch.testing.assert_close(out, expected)  # a GPU multiplies and adds in one rounding


@pytest.mark.parametrize("implementation", ["reference", "triton"])
def test_leading_dimensions(implementation):
    layer = random_layer((6, 40, 7))
    expected = int8_linear(*layer, implementation="reference")
    shaped = int8_linear(layer.x.view(2, 1, 3, 40), *layer[1:], implementation=implementation)
    assert torch.equal(shaped, expected.view(2, 1, 3, 7))
    single = int8_linear(layer.x[2], *layer[1:], residual=torch.zeros(7), implementation=implementation)
    assert torch.equal(single, expected[2])
    assert int8_linear(layer.x[:0], *layer[1:], implementation=implementation).shape == (0, 7)


def test_auto_is_the_reference_on_a_cpu(launches):
    with torch.device("cpu"):
        int8_linear(*random_layer())
    assert not launches


@pytest.mark.parametrize("implementation", ["auto", "triton"])
def test_refuses_gradients(implementation):
    layer = random_layer()
    layer.x.requires_grad_()
    with pytest.raises(RuntimeError, match="int8_linear has no gradient"):
        int8_linear(*layer, implementation=implementation)
    with torch.no_grad():
        assert not int8_linear(*layer, implementation=implementation).requires_grad


def test_refuses_bad_input():
    x, weight, weight_scale, bias, scale = random_layer()
    wrong = {
        r"weight \[7, 40\] uint8.*want x float \[M, K\], weight int8": (
            x,
            weight.view(torch.uint8),
            weight_scale,
        ),
        r"x \[5, 39\]": (x[:, 1:], weight, weight_scale),
        r"weight_scale \[6\]": (x, weight, weight_scale[1:]),
        r"weight_scale \[7\] float16": (x, weight, weight_scale.half()),
        r"x \[5, 40\] int64": (x.long(), weight, weight_scale),
    }
    for message, (a, b, c) in wrong.items():
        with pytest.raises(ValueError, match=message):
            int8_linear(a, b, c, bias, scale)
    with pytest.raises(ValueError, match=r"bias \[7\] float16"):
        int8_linear(x, weight, weight_scale, bias.half(), scale)
    with pytest.raises(ValueError, match=r"residual \[5, 6\]"):
        int8_linear(x, weight, weight_scale, bias, scale, residual=torch.zeros(5, 6))
    with pytest.raises(ValueError, match="input_scale must be above 0 and finite, got 0"):
        int8_linear(x, weight, weight_scale, bias, 0.0)
    with pytest.raises(ValueError, match="activation 'silu', want 'gelu', 'relu' or None"):
        int8_linear(x, weight, weight_scale, bias, scale, "silu")
    with pytest.raises(ValueError, match="want dtype float32, float16, bfloat16"):
        int8_linear(x.double(), weight, weight_scale, bias, scale, implementation="triton")
