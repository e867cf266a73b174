from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sam3i_edge.errors import TrainingError
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import group_of
from sam3i_edge.train.presets import NANO
from sam3i_edge.train.run_config import StageConfig
from sam3i_edge.train.stages import Average, enter, freeze, learning_rate, optimizer

STAGE = {stage.name: stage for stage in NANO.stages}


@pytest.fixture
def model(tiny_model: ModelConfig) -> SAM3I:
    return SAM3I(tiny_model)


def test_groups_cover_the_model(model):
    groups = {name: group_of(name) for name in model.state_dict()}
    assert set(groups.values()) == {"base", "simple", "bridge", "complex"}
    assert groups["detector.mask_decoder.mask_embedders.simple.layers.0.weight"] == "simple"
    assert groups["detector.mask_decoder.mask_embedders.concept.layers.0.weight"] == "base"
    assert groups["text_encoder.layers.0.adapter.bridge.down_proj.weight"] == "bridge"


@pytest.mark.parametrize("stage", NANO.stages)
def test_only_the_stage_learns(model, stage):
    learns = freeze(model, stage)
    assert all(p.requires_grad == (name in learns) for name, p in model.named_parameters())
    if stage.name == "image":
        assert {name.split(".")[0] for name in learns} == {"image_encoder"}
    else:
        assert {group_of(name) for name in learns} == set(stage.trainable)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(m.training == (stage.name in ("image", "base", "detail")) for m in norms)
    adapter = model.text_encoder.layers[0].adapter
    assert adapter.simple.training == (stage.name in ("base", "detail", "1", "3"))


def test_a_frozen_image_encoder_keeps_weights_and_statistics_while_the_base_learns(model):
    learns = freeze(model, replace(STAGE["base"], freeze_image=True))
    rest = {
        n for n, _ in model.named_parameters() if group_of(n) == "base" and n.split(".")[0] != "image_encoder"
    }
    assert set(learns) == rest
    assert not any(module.training for module in model.image_encoder.modules())
    assert all(module.training for module in model.detector.modules())


def test_a_stage_of_the_image_encoder_cannot_freeze_it():
    with pytest.raises(ValueError, match="stage 'image' trains the image encoder: leave freeze_image false"):
        replace(STAGE["image"], freeze_image=True)


def test_a_model_without_adapters_cannot_train_them(tiny_model):
    plain = SAM3I(replace(tiny_model, adapter_dim=0))
    with pytest.raises(TrainingError, match="stage '1' trains 'simple', but the model has only base"):
        freeze(plain, STAGE["1"])


def test_entering_stages_copies_what_the_next_path_starts_from(model):
    embedders = model.detector.mask_decoder.mask_embedders
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    enter(model, STAGE["1"])
    assert torch.equal(embedders.simple.layers[0].weight, embedders.concept.layers[0].weight)
    with torch.no_grad():
        embedders.simple.layers[0].weight.add_(1)
    enter(model, STAGE["2"])
    assert torch.equal(embedders.complex.layers[0].weight, embedders.simple.layers[0].weight)
    adapter = model.text_encoder.layers[0].adapter
    assert torch.equal(adapter.bridge.down_proj.weight, adapter.simple.down_proj.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    enter(model, STAGE["3"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_learning_rate_rises_and_falls():
    stage = StageConfig(
        name="base",
        steps=100,
        lr=2.0,
        warmup=10,
        route="unadapted",
        trainable=("base",),
        level_weights={"concept": 1},
    )
    rates = [learning_rate(stage, step) for step in range(100)]
    assert rates[0] == pytest.approx(2 / 11)
    assert rates[10] == max(rates) == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert 0 < rates[99] < 0.001
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_warmup_longer_than_the_stage_still_ends():
    stage = StageConfig(
        name="1",
        steps=3,
        lr=1.0,
        warmup=300,
        route="adapted",
        trainable=("simple",),
        level_weights={"simple": 1},
    )
    assert [learning_rate(stage, step) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_weight_decay_spares_vectors(model):
    learns = freeze(model, STAGE["base"])
    groups = optimizer(learns, 0.1).param_groups
    assert sum(len(group["params"]) for group in groups) == len(learns)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert all(p.ndim == 1 for p in groups[1]["params"])


def test_average_by_hand(model):
    freeze(model, STAGE["base"])
    average = Average(model, decay=0.25)
    name = "text_encoder.final_norm.bias"
    weight = dict(model.named_parameters())[name]
    expected = weight.detach().clone()
    for update in range(1, 5):
        with torch.no_grad():
            weight.add_(1)
        average.update(model)
        decay = min(0.25, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * weight.detach()
    torch.testing.assert_close(average.values[name], expected)


def test_average_follows_batch_statistics_of_a_base_that_learns(model):
    name = "image_encoder.stem.1.running_mean"
    freeze(model, STAGE["base"])
    assert name in Average(model, 0.9).values
    freeze(model, STAGE["1"])
    assert name not in Average(model, 0.9).values


def test_swapping_twice_changes_no_bit(model):
    freeze(model, STAGE["base"])
    average = Average(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.37)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average.swap(model)
    name = "text_encoder.projection.weight"
    assert not torch.equal(model.state_dict()[name], before[name])
    average.swap(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_validation_between_two_swaps_changes_no_batch_statistics(model):
    freeze(model, STAGE["base"])
    average = Average(model, decay=0.25)
    with torch.no_grad():
        for value in average.values.values():
            value.add_(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    averaged = {name: value.clone() for name, value in average.values.items()}
    average.swap(model)
    model.eval()  # as validation leaves it
    average.swap(model)
    assert any(name.endswith("running_mean") for name in averaged)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, averaged[name]) for name, value in average.values.items())
