from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sam3i_edge.quantize._torchao import FakeQuantize
from sam3i_edge.quantize.calibration import run_pairs
from sam3i_edge.quantize.modules import QuantizedLayer
from sam3i_edge.quantize.ptq import weight_rows
from sam3i_edge.quantize.qat import TrainedLayer, changed_share, enable, insert_trained_layers, to_spec
from sam3i_edge.quantize.ranges import exact_scale
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.quantize.spec import QuantSpec

LAYERS = [
    ("linear", lambda: nn.Linear(64, 5), 8, 0),
    ("linear", lambda: nn.Linear(64, 5, bias=False), 8, 0),
    ("linear", lambda: nn.Linear(64, 5), 4, 32),
    ("conv2d", lambda: nn.Conv2d(6, 5, 3, padding=1), 8, 0),
    ("conv_transpose2d", lambda: nn.ConvTranspose2d(6, 5, 2, stride=2), 8, 0),
    ("embedding", lambda: nn.Embedding(40, 5), 8, 0),
]


def trained(kind, make, bits, group, static=False) -> TrainedLayer:
    """With scales that clip some weights."""
    layer = TrainedLayer(kind, make(), bits, group, static, static and kind != "linear")
    rows = weight_rows(kind, layer.weight.detach())
    grouped = rows.reshape(-1, group) if group else rows
    layer.weight_fake_quant.scale.copy_(exact_scale(grouped.abs().amax(1) * 0.8 / (7 if bits == 4 else 127)))
    for fake in (layer.input_fake_quant, layer.output_fake_quant):
        if fake is not None:
            fake.scale.fill_(0.03125)
            fake.zero_point.fill_(-128 if kind == "conv2d" else 0)
    return layer


def quantized(layer: TrainedLayer) -> QuantizedLayer:
    described, tensors = layer.convert()
    return QuantizedLayer(
        described.kind,
        tensors["weight"],
        tensors["weight_scale"],
        tensors.get("bias"),
        described.input_scale,
        described.output_scale,
        described.options,
        described.input_zero,
        described.output_zero,
    )


def batch(kind):
    if kind == "embedding":
        return torch.randint(0, 40, (4, 7))
    return torch.randn(4, 7, 64) if kind == "linear" else torch.randn(4, 6, 8, 8)


# 4-bit layers have float activations, and a table takes ids.
@pytest.mark.parametrize(
    ("kind", "make", "bits", "group", "static"),
    [(*layer, False) for layer in LAYERS]
    + [(*layer, True) for layer in LAYERS if layer[0] != "embedding" and layer[2] == 8],
)
def test_converted_weights_are_the_trained_ones_bit_for_bit(kind, make, bits, group, static):
    layer = trained(kind, make, bits, group, static)
    learner = torch.optim.AdamW(layer.parameters(), lr=0.02)
    for _ in range(20):  # to weights between, on, and beyond the steps
        x = batch(kind)
        loss = layer(x).square().mean() + (layer(x) - 1).abs().mean()
        learner.zero_grad()
        loss.backward()
        learner.step()
    restored = weight_rows(kind, quantized(layer).dequantized_weight())
    assert torch.equal(restored, layer.rounded_rows().detach())
    x = batch(kind)
    layer.eval()
    torch.testing.assert_close(
        quantized(layer)(x), layer(x).detach(), rtol=1e-4, atol=0.04 if static else 1e-4
    )


def test_ties_are_rounded_as_training_rounds_them():
    """Weights exactly between two steps, and scales that are no powers of two."""
    layer = trained("linear", lambda: nn.Linear(64, 9), 8, 0)
    scale = exact_scale(torch.linspace(0.001, 0.3, 9))
    layer.weight_fake_quant.scale.copy_(scale)
    with torch.no_grad():
        layer.weight.copy_((torch.randint(-100, 100, (9, 64)) + 0.5) * scale[:, None])
    assert torch.equal(quantized(layer).dequantized_weight(), layer.rounded_rows().detach())


def test_gradients_pass_where_nothing_is_clipped():
    layer = trained("linear", lambda: nn.Linear(64, 5), 8, 0, static=True)
    x = torch.randn(3, 64).requires_grad_()
    with torch.no_grad():
        x[0, 0] = 100.0
    layer(x).sum().backward()
    beyond = layer.weight.detach().abs() > 127.5 * layer.weight_fake_quant.scale[:, None]
    assert bool(beyond.any())
    assert bool((layer.weight.grad[beyond] == 0).all())
    assert bool((layer.weight.grad[~beyond] != 0).any())
    assert float(x.grad[0, 0]) == 0
    assert float(x.grad[0, 1]) != 0


def test_rounding_can_wait():
    layer = trained("conv2d", lambda: nn.Conv2d(6, 5, 3, padding=1), 8, 0, static=True)
    x = batch("conv2d")
    want = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    enable(layer, False)
    assert torch.equal(layer(x), want)
    converted = quantized(layer)  # converts as rounded all the same, and stays as it was
    assert torch.equal(layer(x), want)
    enable(layer, True)
    assert not torch.equal(layer(x), want)
    assert torch.equal(converted.dequantized_weight().flatten(1), layer.rounded_rows().detach())


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_starts_at_what_post_training_quantization_gives(
    model, prepared, spec, config, pairs, encode, preprocessing, recipe
):
    student = insert_trained_layers(copy.deepcopy(prepared(recipe).model), spec(recipe)).eval()
    built = spec(recipe).build(config)
    for one, other, plain in zip(
        *(run_pairs(m, pairs[:6], encode, preprocessing) for m in (built, student, model)), strict=True
    ):
        scale = float(one[0].abs().max())
        near = float((one[0] - other[0]).abs().mean())
        assert near <= 0.2 * float((one[0] - plain[0]).abs().mean()) + 1e-6 * scale
    again = to_spec(student, recipe, {})
    assert again.layers == dict(spec(recipe).layers)
    # Where a weight lies between two steps, torchao multiplies by 1 / s and we divide by s.
    assert changed_share(spec(recipe), again) < 1e-3
    assert again.tensors.keys() == spec(recipe).tensors.keys()
    for name, value in spec(recipe).tensors.items():
        if name.endswith("weight_scale"):
            assert torch.equal(value, again.tensors[name]), name
        elif value.dtype == torch.float32:
            torch.testing.assert_close(value, again.tensors[name], rtol=1e-6, atol=1e-6)


def test_observers_are_off_from_the_first_step(prepared, spec, pairs, encode, preprocessing):
    student = insert_trained_layers(copy.deepcopy(prepared("int8").model), spec("int8")).train()
    fakes = {name: m for name, m in student.named_modules() if isinstance(m, FakeQuantize)}
    layers = spec("int8").layers
    assert len(fakes) == sum(
        1 + (x.input_scale is not None) + (x.output_scale is not None) for x in layers.values()
    )
    before = {name: fake.scale.clone() for name, fake in fakes.items()}
    list(run_pairs(student, pairs[:2], encode, preprocessing))
    for name, fake in fakes.items():
        assert torch.equal(fake.scale, before[name])
        assert bool((fake.scale > 0).all())
        assert not fake.observer_enabled[0]


def test_a_state_loads_into_a_fresh_structure(prepared, spec, model, tmp_path):
    student = insert_trained_layers(copy.deepcopy(prepared("int8").model), spec("int8"))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    torch.save(student.state_dict(), tmp_path / "state.pt")
    spec("int8").save(tmp_path / "ptq.safetensors")
    fresh = insert_trained_layers(model, QuantSpec.load(tmp_path / "ptq.safetensors"))
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    one, other = to_spec(student, "int8", {}), to_spec(fresh, "int8", {})
    assert all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())
    assert changed_share(spec("int8"), other) > 0.05


def test_the_share_of_changed_integers(spec):
    one = spec("int8")
    tensors = dict(one.tensors)
    total = sum(v.numel() for v in one.integers.values())
    name = next(iter(one.layers))
    tensors[f"{name}.weight"] = tensors[f"{name}.weight"].clone()
    first = tensors[f"{name}.weight"].view(-1)
    first[:3] = torch.where(first[:3] > 0, first[:3] - 1, first[:3] + 1)
    other = QuantSpec("int8", one.layers, tensors)
    assert changed_share(one, one) == 0
    assert changed_share(one, other) == pytest.approx(3 / total)
