from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sam3i_edge.quantize import ranges
from sam3i_edge.quantize.ranges import (
    SMALLEST,
    activation_scale,
    exact_scale,
    raise_for_bias,
    round_in_turn,
    round_to,
    weight_scale,
)


def in_float16(scale: torch.Tensor) -> bool:
    return torch.equal(scale, scale.half().float()) and bool((scale >= SMALLEST).all())


def error(rows, scale, importance, low, high):
    rounded = (rows / scale[:, None]).round().clamp(low, high) * scale[:, None]
    return (importance * (rows - rounded) ** 2).sum(1)


@given(st.lists(st.floats(0, 65504, width=32), min_size=1, max_size=50))
def test_exact_scale_is_the_least_float16_that_is_not_below(values):
    scale = torch.tensor(values, dtype=torch.float32)
    exact = exact_scale(scale)
    assert in_float16(exact)
    assert bool((exact >= scale).all())
    half = exact.numpy().astype(np.float16)
    below = np.nextafter(half, np.float16(0)).astype(np.float32)
    smaller = torch.from_numpy(below)
    assert bool(((smaller < scale) | (exact == SMALLEST)).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 65505.0])
def test_scales_that_float16_cannot_hold_are_refused(value):
    with pytest.raises(ValueError, match="scales must be finite and at most 65504"):
        exact_scale(torch.tensor([1.0, value]))


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -127, 127), (4, -8, 7)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_searched_scale_is_never_worse_than_the_largest_magnitude(bits, low, high, weighted):
    generator = torch.Generator().manual_seed(bits)
    rows = torch.randn(64, 48, generator=generator) * 10 ** torch.randn(64, 1, generator=generator)
    importance = torch.rand(48, generator=generator) ** 4 if weighted else None
    scale = weight_scale(rows, importance, bits)
    weigh = torch.ones(48) if importance is None else importance.clamp(min=1e-12)
    absmax = exact_scale(rows.abs().amax(1) / high)
    found, plain = error(rows, scale, weigh, low, high), error(rows, absmax, weigh, low, high)
    assert in_float16(scale)
    assert bool((found <= plain).all())
    if weighted or bits == 4:  # eight bits of a Gaussian row have nothing to gain from clipping
        assert float((found / plain).mean()) < (0.99 if bits == 8 else 0.9)


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -127, 127), (4, -8, 7)])
def test_no_other_share_of_the_largest_magnitude_loses_less(bits, low, high):
    rows = torch.randn(64, 32, generator=torch.Generator().manual_seed(bits))
    found = error(rows, weight_scale(rows, None, bits), torch.ones(32), low, high)
    largest = rows.abs().amax(1)
    for ratio in torch.linspace(1, 0.35, 40).tolist():
        other = error(rows, exact_scale(largest * ratio / high), torch.ones(32), low, high)
        assert bool((found <= other + 1e-6).all())


def test_importance_moves_the_scale_to_what_matters():
    """One large weight that no input reaches: the range is that of the others."""
    rows = torch.cat((torch.full((1, 1), 1.5), torch.linspace(-1, 1, 63)[None]), 1)
    reached = torch.ones(64)
    reached[0] = 0
    assert float(weight_scale(rows, reached, 8)) <= 1.001 / 127 * 1.03
    assert float(weight_scale(rows, torch.ones(64), 8)) > 1.4 / 127


def test_a_row_of_zeros_has_the_smallest_scale():
    assert weight_scale(torch.zeros(2, 8), None, 8).tolist() == [SMALLEST, SMALLEST]


def test_rounding_reaches_the_ends_and_no_further():
    values = torch.tensor([-3.0, -1.0, -0.26, 0.24, 0.26, 3.0])
    assert round_to(values, torch.tensor(0.5), -2, 2).tolist() == [-2, -2, -1, 0, 1, 2]
    assert round_to(values, torch.tensor(0.5), -127, 127).dtype == torch.int8


def test_activation_scale_clips_outliers_when_that_loses_less():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(20_000, generator=generator)
    even = activation_scale(values, float(values.abs().max()))
    values[0] = 12.0
    clipped = activation_scale(values, 12.0)
    assert in_float16(torch.tensor([even, clipped]))

    def loss(scale):
        return float(((values - (values / scale).round().clamp(-128, 127) * scale) ** 2).mean())

    assert loss(clipped) <= loss(float(exact_scale(torch.tensor(12 / 127))))
    assert clipped < 12 / 127
    assert activation_scale(torch.zeros(4), 0.0) == SMALLEST


def test_scales_rise_until_the_bias_fits_an_int32_with_room():
    scale = torch.tensor([2.0**-14, 2.0**-14, 0.5])
    bias = torch.tensor([1.0, 1000.0, -1000.0])
    raised = raise_for_bias(scale, bias, 2.0**-14)
    assert raised[0] == scale[0]
    assert raised[2] == scale[2]
    assert raised[1] > scale[1]
    assert in_float16(raised)
    assert bool((bias.abs() <= 2.0**29 * 2.0**-14 * raised).all())


def test_without_negative_values_all_256_steps_are_above_zero():
    values = torch.rand(20_000, generator=torch.Generator().manual_seed(0)) * 6
    assert activation_scale(values, 6.0, -128) <= float(exact_scale(torch.tensor(6 / 255)))


@pytest.mark.parametrize(("low", "high"), [(-127, 127), (-8, 7)])
def test_rounding_in_turn_loses_less_of_the_product_than_rounding_each_weight(low, high):
    """Two groups of rows, each reading inputs of its own, that go together as neighbouring pixels do."""
    generator = torch.Generator().manual_seed(high)
    inputs = torch.randn(500, 2, 12, generator=generator).cumsum(2)
    rows = torch.randn(8, 12, generator=generator)
    scale = exact_scale(rows.abs().amax(1) / high)[:, None]
    products = torch.einsum("rgj,rgk->gjk", inputs, inputs)
    integers = round_in_turn(rows, scale, low, high, products)
    assert integers.dtype == torch.int8
    assert low <= int(integers.min()) <= int(integers.max()) <= high

    def loss(weights):
        lost = (weights * scale - rows).view(2, 4, 12)
        return torch.einsum("rgk,gnk->rgn", inputs, lost).square().mean((0, 1, 2))

    assert loss(integers) < 0.5 * loss(round_to(rows, scale, low, high))


def test_rounding_in_turn_is_plain_rounding_of_inputs_that_do_not_go_together():
    rows = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    scale = torch.full((5, 1), 0.01)
    products = torch.eye(6)[None]
    assert torch.equal(round_in_turn(rows, scale, -127, 127, products), round_to(rows, scale, -127, 127))


def test_blocks_of_a_large_weight_give_what_column_by_column_does(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(400, 1, 60, generator=generator).cumsum(2)
    rows, scale = torch.randn(9, 60, generator=generator), torch.full((9, 1), 0.03)
    products = torch.einsum("rgj,rgk->gjk", inputs, inputs)
    whole = round_in_turn(rows, scale, -127, 127, products)
    monkeypatch.setattr(ranges, "_AT_ONCE", 1)
    monkeypatch.setattr(ranges, "_BLOCK", 16)
    blocks = round_in_turn(rows, scale, -127, 127, products)
    assert float((blocks != whole).float().mean()) < 0.02  # sums of floats in another order


def test_an_input_that_never_varies_is_no_obstacle():
    products = torch.zeros(1, 3, 3)
    found = round_in_turn(torch.ones(2, 3), torch.full((2, 1), 0.5), -127, 127, products)
    assert found.tolist() == [[2] * 3] * 2
