from __future__ import annotations

import pytest
import torch

from sam3i_edge.kernels.int4_linear import int4_linear, pack_int4, unpack_int4

LARGEST_ERROR = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
# Rows, inputs, outputs.
SIZES = {"odd": (70, 160, 67), "one": (1, 32, 1), "whole tiles": (64, 128, 64)}


def random_layer(
    sizes: tuple[int, int, int] = (5, 64, 7), dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, integers [N, K], scales, bias."""
    rows, inputs, outputs = sizes
    return (
        torch.randn(rows, inputs).to(dtype),
        torch.randint(-8, 8, (outputs, inputs), dtype=torch.int8),
        (0.01 + 0.1 * torch.rand(outputs, inputs // 32)).half(),
        torch.randn(outputs),
    )


def in_float64(x, integers, scales, bias) -> torch.Tensor:
    weight = integers.double() * scales.double().repeat_interleave(32, dim=1)
    return x.double() @ weight.T + bias.double()


@pytest.fixture(autouse=True)
def _on_device(device):
    with torch.device(device):
        yield


def test_packs_the_even_channel_low():
    values = torch.tensor([[-8, 7, -1, 0] + [3] * 28], dtype=torch.int8)
    packed = pack_int4(values)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [[0x78, 0x0F] + [0x33] * 14]


def test_unpacks_every_byte():
    every = torch.arange(256, dtype=torch.uint8).view(4, 64)
    values = unpack_int4(every)
    assert values.dtype == torch.int8
    assert sorted(set(values.flatten().tolist())) == list(range(-8, 8))
    assert torch.equal(pack_int4(values), every)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", LARGEST_ERROR, ids=str)
def test_matches_float64(sizes, dtype, launches):
    x, integers, scales, bias = random_layer(sizes, dtype)
    expected = in_float64(x, integers, scales, bias)
    for implementation in ("reference", "triton"):
        out = int4_linear(x, pack_int4(integers), scales, bias, implementation)
        assert out.dtype == dtype
        assert (out.double() - expected).abs().max() <= LARGEST_ERROR[dtype] * expected.abs().max().clamp(
            min=1
        )
    assert dict(launches) == {"_int4_linear_kernel": 1}


@pytest.mark.parametrize("dtype", LARGEST_ERROR, ids=str)
def test_every_integer_and_group_counts(dtype):
    """One input at a time, with scales that differ by group: outputs are the weights themselves."""
    _, integers, scales, _ = random_layer((1, 96, 5))
    x = torch.eye(96, dtype=dtype)
    expected = (integers.float() * scales.float().repeat_interleave(32, dim=1)).to(dtype).T
    out = int4_linear(x, pack_int4(integers), scales, implementation="triton")
    assert torch.equal(out, expected)


@pytest.mark.parametrize("dtype", LARGEST_ERROR, ids=str)
def test_non_contiguous_among_nan(dtype):
    """96 inputs are one and a half tiles: nothing beside them is read."""
    x, integers, scales, bias = random_layer((6, 96, 7), dtype)
    packed = pack_int4(integers)
    expected = int4_linear(x, packed, scales, bias, "triton")
    around = torch.full((8, 98), float("nan"), dtype=dtype)
    around[1:7, 1:97] = x
    for view in (around[1:7, 1:97], x.T.contiguous().T):
        args = (view, packed.T.contiguous().T, scales.T.contiguous().T, bias)
        assert not any(tensor.is_contiguous() for tensor in args[:3])
        assert torch.equal(int4_linear(*args, "triton"), expected)


@pytest.mark.parametrize("implementation", ["reference", "triton"])
def test_leading_dimensions(implementation):
    x, integers, scales, bias = random_layer((6, 32, 7))
    packed = pack_int4(integers)
    expected = int4_linear(x, packed, scales, bias, "reference")
    shaped = int4_linear(x.view(2, 1, 3, 32), packed, scales, bias, implementation)
    assert torch.allclose(shaped, expected.view(2, 1, 3, 7), atol=1e-5)
    assert torch.allclose(int4_linear(x[1], packed, scales, bias, implementation), expected[1], atol=1e-5)
    assert int4_linear(x[:0], packed, scales, bias, implementation).shape == (0, 7)


def test_auto_is_the_reference_on_a_cpu(launches):
    with torch.device("cpu"):
        x, integers, scales, bias = random_layer()
        int4_linear(x, pack_int4(integers), scales, bias)
    assert not launches


def test_refuses_gradients():
    x, integers, scales, bias = random_layer()
    packed = pack_int4(integers)
    with pytest.raises(RuntimeError, match="int4_linear has no gradient"):
        int4_linear(x.requires_grad_(), packed, scales, bias, "triton")
    with torch.no_grad():
        assert not int4_linear(x, packed, scales, bias, "triton").requires_grad


def test_refuses_bad_input():
    x, integers, scales, bias = random_layer()
    packed = pack_int4(integers)
    with pytest.raises(
        ValueError, match="48 input channels, want a multiple of 32: keep this layer at 8 bits"
    ):
        int4_linear(x[:, :48], packed[:, :24], scales, bias)
    with pytest.raises(ValueError, match="40 input channels, want a multiple of 32"):
        pack_int4(integers[:, :40])
    with pytest.raises(ValueError, match=r"values in -8\.\.8, want -8\.\.7"):
        pack_int4(torch.tensor([[8, -8] * 16], dtype=torch.int8))
    with pytest.raises(ValueError, match="64 inputs, 16 bytes and 2 scales a row; want K, K / 2 and K / 32"):
        int4_linear(x, packed[:, :16], scales, bias)
    with pytest.raises(ValueError, match=r"scales \[7, 2\] float32.*want .*scales float16 \[N, G\]"):
        int4_linear(x, packed, scales.float(), bias)
    with pytest.raises(ValueError, match=r"packed \[7, 32\] int8"):
        int4_linear(x, packed.view(torch.int8), scales, bias)
