from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from sam3i_edge.data.batch import BatchShape
from sam3i_edge.data.dataset import SceneBatches
from sam3i_edge.model.config import SAM3I_OFFICIAL
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.quantize import balance as balancing
from sam3i_edge.quantize.balance import balance, groups
from sam3i_edge.quantize.calibration import calibrate
from sam3i_edge.quantize.recipes import RECIPES


@pytest.fixture
def uneven(model):
    """A model with a few loud channels in every norm, which balancing then evens out."""
    with torch.no_grad():
        for group in groups(model):
            producer = model.get_submodule(group.producer)
            loud = torch.ones(len(producer.weight))
            loud[::5] = 8.0
            producer.weight.mul_(loud if producer.weight.ndim == 1 else loud[:, None])
            if producer.bias is not None:
                producer.bias.mul_(loud)
    return model


def test_balancing_leaves_the_function_unchanged(uneven, pairs, encode, preprocessing):
    modules = RECIPES["int8"].modules(uneven)
    shape = BatchShape(images=2, instructions=3, mask_instructions=3, image_size=64, mask_size=16)
    batch = SceneBatches(shape, encode, seed=1, stream=0, level_weights=dict.fromkeys(
        ("concept", "simple", "complex"), 1.0))[0]  # fmt: skip

    def answers(model):
        with torch.no_grad():
            return model(
                batch.pixel_values, batch.input_ids, batch.level, batch.image_index, batch.mask_index
            )

    before = answers(uneven)
    weights = {name: value.clone() for name, value in uneven.state_dict().items()}
    seen = calibrate(uneven, modules, pairs, encode, preprocessing)
    changed = balance(uneven, modules, seen)
    kinds = {name.rpartition(".")[2] for name in changed}
    assert kinds >= {"norm1", "norm2", "norm3", "v_proj", "fc1", "attn_norm", "mlp_norm"}, changed
    assert set(changed.values()) <= set(balancing._ALPHAS)
    after = answers(uneven)
    for name in ("logits", "boxes", "presence", "mask_logits", "semantic_logits"):
        one, other = getattr(before, name), getattr(after, name)
        assert float((one - other).abs().max()) <= 1e-5 * float(one.abs().max()), name
    for producer in changed:
        name = f"{producer}.weight"
        assert not torch.equal(weights[name], uneven.state_dict()[name])


def test_what_was_seen_changes_along(uneven, pairs, encode, preprocessing):
    modules = RECIPES["int8"].modules(uneven)
    seen = calibrate(uneven, modules, pairs, encode, preprocessing)
    changed = balance(uneven, modules, seen)
    again = calibrate(uneven, modules, pairs, encode, preprocessing)
    for group in groups(uneven):
        if group.producer in changed:
            for name in group.consumers:
                torch.testing.assert_close(
                    seen.inputs[name].largest, again.inputs[name].largest, rtol=1e-4, atol=1e-5
                )
                torch.testing.assert_close(
                    seen.inputs[name].mean_square, again.inputs[name].mean_square, rtol=1e-3, atol=1e-5
                )
                torch.testing.assert_close(
                    seen.inputs[name].rows, again.inputs[name].rows, rtol=1e-3, atol=1e-4
                )


def test_a_group_with_a_float_reader_is_left_alone(uneven, pairs, encode, preprocessing):
    modules = RECIPES["int8"].modules(uneven)
    del modules["text_encoder.layers.0.attn.q_proj"]
    seen = calibrate(uneven, modules, pairs, encode, preprocessing)
    before = copy.deepcopy(uneven.text_encoder.layers[0].norm1)
    changed = balance(uneven, modules, seen)
    assert "text_encoder.layers.0.norm1" not in changed
    assert torch.equal(before.weight, uneven.text_encoder.layers[0].norm1.weight)


def test_every_group_names_modules_that_fit_together():
    """Of both backbones; a producer has as many channels as each consumer has inputs."""
    with torch.device("meta"):
        model = SAM3I(replace(SAM3I_OFFICIAL, vit_depth=1, vit_global_blocks=(0,), text_layers=1))
    found = list(groups(model))
    assert any(group.producer.startswith("image_encoder.") for group in found)
    for group in found:
        width = model.get_submodule(group.producer).weight.shape[0]
        assert all(model.get_submodule(name).in_features == width for name in group.consumers)
