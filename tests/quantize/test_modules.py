from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.quantize.modules import QuantizedLayer, conv_options, fake_quantize


def integers(*shape):
    return torch.randint(-127, 128, shape, dtype=torch.int8)


def steps(values: torch.Tensor, scale: float) -> torch.Tensor:
    return (values / scale).round().clamp(-128, 127) * scale


@pytest.mark.parametrize("static", [False, True])
def test_a_linear_layer_is_its_formula(static):
    weight, scale, bias = integers(5, 6), torch.rand(5) + 0.01, torch.randn(5)
    x = 3 * torch.randn(2, 7, 6)
    layer = QuantizedLayer("linear", weight, scale, bias, 0.0625 if static else None)
    want = (steps(x, 0.0625) if static else x) @ (weight.float() * scale[:, None]).T + bias
    torch.testing.assert_close(layer(x), want)
    assert not layer.grouped


def test_groups_along_the_input():
    weight, scale = torch.randint(-8, 8, (5, 6), dtype=torch.int8), torch.rand(5, 3) + 0.01
    layer = QuantizedLayer("linear", weight, scale, None)
    want = weight.float() * scale.repeat_interleave(2, 1)
    assert layer.grouped
    torch.testing.assert_close(layer.dequantized_weight(), want)
    x = torch.randn(4, 6)
    torch.testing.assert_close(layer(x), x @ want.T)


def test_convolutions_have_a_scale_an_output_channel():
    x = torch.randn(1, 4, 9, 9)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    weight, scale, bias = integers(6, 2, 3, 3), torch.rand(6) + 0.01, torch.randn(6)
    layer = QuantizedLayer("conv2d", weight, scale, bias, 0.03125, 0.25, conv_options(conv))
    want = F.conv2d(
        steps(x, 0.03125), weight.float() * scale[:, None, None, None], bias, stride=2, padding=1, groups=2
    )
    torch.testing.assert_close(layer(x), steps(want, 0.25), atol=1e-4, rtol=1e-5)
    transposed = nn.ConvTranspose2d(4, 6, 2, stride=2)
    weight = integers(4, 6, 2, 2)
    layer = QuantizedLayer("conv_transpose2d", weight, scale, bias, options=conv_options(transposed))
    want = F.conv_transpose2d(x, weight.float() * scale[None, :, None, None], bias, stride=2)
    torch.testing.assert_close(layer(x), want)


def test_a_table_gives_its_rows_times_their_scales():
    weight, scale, ids = integers(7, 5), torch.rand(7) + 0.01, torch.tensor([[3, 0, 6, 3]])
    layer = QuantizedLayer("embedding", weight, scale, None)
    assert torch.equal(layer(ids), weight[ids].float() * scale[ids][..., None])
    assert torch.equal(layer(ids), layer.dequantized_weight()[ids])


def test_activations_take_256_steps_and_are_clipped():
    x = torch.tensor([-1000.0, -0.126, 0.1, 0.124, 0.13, 1000.0])
    assert fake_quantize(x, 0.25).tolist() == [-32.0, -0.25, 0.0, 0.0, 0.25, 31.75]


@pytest.mark.parametrize(
    "module",
    [nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), nn.ConvTranspose2d(2, 2, 3, 2, output_padding=1)],
)
def test_other_paddings_are_refused(module):
    with pytest.raises(ValueError, match=r"cannot quantize a convolution with .*: keep it float"):
        conv_options(module)
