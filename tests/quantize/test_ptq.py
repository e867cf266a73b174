from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sam3i_edge.agreement import compare, quality
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.sam3i import adapter_of
from sam3i_edge.quantize.calibration import Seen, run_pairs
from sam3i_edge.quantize.ptq import Prepared, quantize_module, relu_chains, weight_from_rows, weight_rows
from sam3i_edge.quantize.ranges import round_to
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.quantize.sensitivity import Questions

INT8 = RECIPES["int8"]


def detect(model, questions):
    return questions.detect(model, questions.encode_images(model), questions.encode_texts(model))


@pytest.fixture
def questions(pairs, encode, preprocessing):
    return Questions(pairs, encode, preprocessing)


@pytest.mark.parametrize(("recipe", "least"), [("int8", 0.85), ("int8w", 0.92), ("int4", 0.8)])
def test_the_quantized_model_finds_what_the_float_one_does(model, spec, config, questions, recipe, least):
    want, got = detect(model, questions), detect(spec(recipe).build(config), questions)
    agreement = compare(want, got)
    assert agreement.instances > 20
    assert quality(want, got) > least
    assert agreement.score > 0  # and yet it computes in other numbers


def test_a_prepared_model_is_the_same_function(model, prepared, pairs, encode, preprocessing):
    for one, other in zip(
        run_pairs(model, pairs[:5], encode, preprocessing),
        run_pairs(prepared("int8").model, pairs[:5], encode, preprocessing),
        strict=True,
    ):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


def test_integers_lose_less_of_the_product_than_the_nearest_ones(prepared, spec):
    """And are those wherever nothing is known of how inputs go together."""
    shares = []
    for name, module in prepared("int8").modules.items():
        layer, tensors = spec("int8").layers[name], spec("int8").tensors
        rows = weight_rows(layer.kind, module.weight)
        integers = weight_rows(layer.kind, tensors[f"{name}.weight"])
        scale = tensors[f"{name}.weight_scale"][:, None]
        nearest = round_to(rows, scale, -127, 127)
        seen = prepared("int8").seen.inputs.get(name)
        if seen is None or seen.products is None:
            assert torch.equal(integers, nearest), name
            continue

        def loss(found, rows=rows, scale=scale, products=seen.products):
            lost = (found * scale - rows).view(len(products), -1, products.shape[1])
            return float(torch.einsum("gnj,gjk,gnk->", lost, products, lost))

        shares.append(loss(integers) / loss(nearest))
    assert max(shares) < 1.1  # each column is settled before those behind it are known
    assert sum(shares) / len(shares) < 0.8


def test_biases_are_whole_steps(spec):
    for name, layer in spec("int8").layers.items():
        bias = spec("int8").tensors.get(f"{name}.bias")
        if bias is not None:
            step = (spec("int8").tensors[f"{name}.weight_scale"].double() * layer.input_scale).float()
            assert torch.equal((bias / step).round() * step, bias), name
            assert float((bias / step).abs().max()) < 2**30


@pytest.mark.parametrize(
    ("kind", "module"),
    [
        ("linear", nn.Linear(6, 5)),
        ("conv2d", nn.Conv2d(6, 5, 3, padding=1)),
        ("conv_transpose2d", nn.ConvTranspose2d(6, 5, 2, stride=2)),
    ],
)
def test_the_bias_takes_up_the_mean_error_of_the_weights(kind, module):
    """With inputs that have a mean, coarse weights shift the output; the corrected bias takes that back."""
    recipe = RECIPES["int8w"]
    inputs = torch.rand(64, 6) + 1 if kind == "linear" else torch.rand(8, 6, 12, 12) + 1
    rows = inputs if kind == "linear" else inputs.movedim(1, -1).flatten(0, 2)
    seen = Seen.of(6)
    seen.add(rows)
    with torch.no_grad():
        module.weight.mul_(torch.tensor(1e-3))  # steps of 2^-14 are coarse for these
        layer, tensors = quantize_module(kind, "layer", module, recipe, seen, None)
        steps = weight_rows(kind, tensors["weight"]).float() * tensors["weight_scale"][:, None]
        coarse = weight_from_rows(kind, steps, module.weight.shape)
        assert layer.bits == 8
        want = module(inputs)
        rounded, plain = copy.deepcopy(module), copy.deepcopy(module)
        rounded.weight.copy_(coarse)
        plain.weight.copy_(coarse)
        rounded.bias.copy_(tensors["bias"])
        channel = tuple(n for n in range(want.ndim) if n != 1)
        inside = (slice(None), slice(None), slice(1, -1), slice(1, -1)) if want.ndim == 4 else ...
        corrected = (rounded(inputs) - want)[inside].mean(channel).abs().max()
        uncorrected = (plain(inputs) - want)[inside].mean(channel).abs().max()
    assert float(uncorrected) > 0
    assert float(corrected) < 0.2 * float(uncorrected)


@pytest.mark.parametrize("kind", ["linear", "conv2d", "conv_transpose2d"])
def test_rows_of_a_weight_and_back(kind):
    weight = torch.randn(*((4, 6) if kind == "linear" else (4, 6, 3, 2)))
    rows = weight_rows(kind, weight)
    assert rows.shape[0] == (6 if kind == "conv_transpose2d" else 4)
    assert torch.equal(weight_from_rows(kind, rows, weight.shape), weight)


def test_layers_that_are_named_stay_float(prepared, spec):
    name = "detector.decoder.layers.0.mlp.fc1"
    kept = prepared("int8").quantize({name})
    assert kept.layers.keys() == spec("int8").layers.keys() - {name}
    assert kept.tensors[f"{name}.weight"].dtype == torch.float32
    assert f"{name}.weight_scale" not in kept.tensors
    assert kept.notes["kept_float"] == [name]


def test_balancing_can_be_left_out(model, pairs, encode, preprocessing, prepared):
    plain = Prepared(model, INT8, pairs, encode, preprocessing, balanced=False)
    assert plain.notes["balanced"] == {}
    assert prepared("int8w").notes["balanced"] == {}  # float activations have nothing to gain
    assert prepared("int8").notes["calibration"]["pairs"] == len(pairs)


def other_adapters(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if adapter_of(name):
                parameter.mul_(1.5).add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_with_other_adapters_concept_keeps_every_bit(
    model, spec, config, pairs, encode, preprocessing, recipe
):
    base = spec(recipe)
    changed = Prepared(
        other_adapters(model), RECIPES[recipe], pairs, encode, preprocessing, base=base
    ).quantize()
    assert changed.layers.keys() == base.layers.keys()
    for name, value in base.tensors.items():
        assert adapter_of(name) or torch.equal(value, changed.tensors[name]), name
    before, after = base.build(config), changed.build(config)
    for level in LEVELS:
        same = [
            torch.equal(a, b)
            for one, two in zip(
                *(
                    run_pairs(m, [copy_of(p, level) for p in pairs[:4]], encode, preprocessing)
                    for m in (before, after)
                ),
                strict=True,
            )
            for a, b in zip(one, two, strict=True)
        ]
        assert all(same) if level == "concept" else not any(same[0::4]), level


def copy_of(pair, level):
    from dataclasses import replace

    return replace(pair, level=level)


def test_a_base_of_another_recipe_is_refused(model, spec, pairs, encode, preprocessing):
    with pytest.raises(ValueError, match="the base is quantized as 'int4', want 'int8'"):
        Prepared(model, INT8, pairs, encode, preprocessing, base=spec("int4"))


def test_a_convolution_read_through_relu_takes_the_scale_of_its_reader(prepared, spec):
    layers = spec("int8").layers
    chains = list(relu_chains(prepared("int8").model))
    assert len(chains) == 1 + 2 * 3  # the stem, and two in each of three stages
    for producer, consumer in chains:
        assert layers[producer].output_scale == layers[consumer].input_scale
        assert layers[producer].output_zero == layers[consumer].input_zero == -128
    behind = {consumer for _, consumer in chains}
    assert {name for name, layer in layers.items() if layer.input_zero} == behind
