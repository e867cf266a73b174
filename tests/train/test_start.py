from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from sam3i_edge.errors import ArtifactError, TrainingError
from sam3i_edge.model.config import SAM3I_NANO
from sam3i_edge.model.folding import fold, site_gates
from sam3i_edge.model.sam3i import SAM3I, adapter_of
from sam3i_edge.model.weights import (
    WEIGHT_FILES,
    group_of,
    load_model,
    save_weights,
    write_config,
    write_safetensors,
)
from sam3i_edge.train.presets import distillation, fine_tuning
from sam3i_edge.train.run_config import TeacherConfig, TrainConfig
from sam3i_edge.train.smaller_encoder import smaller, without_blocks
from sam3i_edge.train.start import load_start, new_model, open_teacher, sizes_of

VIT = replace(
    SAM3I_NANO, image_size=56, backbone="vit", pretrain_image_size=28, window_size=2, vit_width=32,
    vit_depth=4, vit_heads=4, vit_mlp_dim=64, vit_global_blocks=(1,), text_layers=1,
)  # fmt: skip


def save(folder, config):
    torch.manual_seed(1)
    model = SAM3I(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_weights(model, folder)
    return model.state_dict()


def start(config):
    model = new_model(config, sizes_of(config))
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    load_start(model, config)
    return model.state_dict(), fresh


def test_kept_blocks_are_those_of_the_teacher_and_all_else_is_kept(tmp_path):
    whole = save(tmp_path, VIT)
    kept = (0, 1, 3)
    state, _ = start(distillation(str(tmp_path), "", without_blocks(VIT, kept), kept))
    for name, value in state.items():
        source = name
        for new, old in enumerate(kept):
            source = source.replace(f"blocks.{new}.", f"blocks.#{old}.") if "#" not in source else source
        assert torch.equal(value, whole[source.replace("#", "")]), name


def test_a_block_that_did_nothing_is_not_missed(tmp_path):
    torch.manual_seed(1)
    model = SAM3I(VIT).eval()
    with torch.no_grad():
        for part in (model.image_encoder.backbone.blocks[2].attn.o_proj,):
            part.weight.zero_()
            part.bias.zero_()
        model.image_encoder.backbone.blocks[2].mlp.fc2.weight.zero_()
        model.image_encoder.backbone.blocks[2].mlp.fc2.bias.zero_()
    save_weights(model, tmp_path)
    kept = (0, 1, 3)
    config = distillation(str(tmp_path), "", without_blocks(VIT, kept), kept)
    small = SAM3I(sizes_of(config)).eval()
    load_start(small, config)
    pixels = torch.rand(1, 3, 56, 56)
    for got, want in zip(small.image_encoder(pixels), model.image_encoder(pixels), strict=True):
        torch.testing.assert_close(got, want)


def test_a_narrower_encoder_has_the_first_channels(tmp_path, tiny_model):
    whole = save(tmp_path, tiny_model)
    state, _ = start(distillation(str(tmp_path), "", {"conv_widths": (8, 8, 8, 8)}))
    name = "image_encoder.stages.2.blocks.0.conv1.0.weight"
    assert torch.equal(state[name], whole[name][:8, :8])
    others = [name for name in state if not name.startswith("image_encoder.")]
    assert all(torch.equal(state[name], whole[name]) for name in others)


def test_another_trunk_starts_anew_and_all_else_is_kept(tmp_path):
    whole = save(tmp_path, VIT)
    state, fresh = start(distillation(str(tmp_path), "", smaller(VIT, "repvit-m0.9", 0.25)))
    for name, value in state.items():
        if "batch_norm" in name:
            continue
        kept = name in whole
        assert kept == name.startswith(("image_encoder.neck.", "geometry_", "text_", "detector.")), name
        assert torch.equal(value, whole[name] if kept else fresh[name]), name


def test_adapters_are_built_at_the_students_width(tmp_path, tiny_model):
    """And, with a teacher, those of the detector are its."""
    student = replace(tiny_model, adapter_dim=0, text_width=24, text_layers=2, text_heads=2, text_context=16)
    save(tmp_path / "student", student)
    taught = save(tmp_path / "teacher", tiny_model)
    config = fine_tuning(["1"], str(tmp_path / "student"), adapters=8)
    config = replace(config, sizes={"adapter_dim": 8, "adapter_heads": 2})
    for given in (config, replace(config, teacher=TeacherConfig(weights=str(tmp_path / "teacher")))):
        state, fresh = start(given)
        adapters = [name for name in state if adapter_of(name)]
        assert state["text_encoder.layers.1.adapter.simple.down_proj.weight"].shape == (8, 24)
        for name in adapters:
            if name.startswith("text_encoder."):
                assert torch.equal(state[name], fresh[name])
            elif given.teacher.weights:
                assert torch.equal(state[name], taught[name])
    embedders = "detector.mask_decoder.mask_embedders.{}.layers.0.weight"
    state, _ = start(config)
    assert torch.equal(state[embedders.format("simple")], state[embedders.format("concept")])


def test_new_adapters_change_nothing_yet(tmp_path, tiny_model):
    save(tmp_path, replace(tiny_model, adapter_dim=0))
    config = fine_tuning(["1"], str(tmp_path), adapters=8)
    model = SAM3I(sizes_of(config)).eval()
    load_start(model, config)
    plain = load_model(tmp_path)
    pixels, ids = torch.rand(3, 3, 64, 64), torch.randint(3, 500, (3, 32))
    with torch.no_grad():
        got = model(pixels, ids, torch.arange(3))
        want = plain(pixels, ids, None)
    torch.testing.assert_close(got.mask_logits, want.mask_logits)
    torch.testing.assert_close(got.logits, want.logits)


def test_new_details_of_masks_change_nothing_yet(tmp_path, tiny_model):
    save(tmp_path, tiny_model)
    config = replace(fine_tuning(["1"], str(tmp_path)), sizes={"mask_detail": 4})
    model = SAM3I(sizes_of(config)).eval()
    load_start(model, config)
    plain = load_model(tmp_path)
    pixels, ids = torch.rand(3, 3, 64, 64), torch.randint(3, 500, (3, 32))
    with torch.no_grad():
        got, want = (m(pixels, ids, torch.arange(3)) for m in (model, plain))
    enlarged = F.interpolate(want.mask_logits, scale_factor=2, mode="bilinear", align_corners=False)
    assert got.mask_logits.shape[-1] == model.config.mask_size == 2 * plain.config.mask_size
    torch.testing.assert_close(got.mask_logits, enlarged)
    torch.testing.assert_close(got.logits, want.logits)


def test_adapters_that_convert_made_constants_stay_so(tmp_path, tiny_model):
    """As in a bundle of released weights, where most never learned."""
    torch.manual_seed(1)
    model = SAM3I(tiny_model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("up_proj.bias"):
                parameter.normal_()
    folded = fold(model.state_dict(), site_gates(model))
    assert folded.adapters
    for file, parts in WEIGHT_FILES.items():
        part = {name: value for name, value in folded.tensors.items() if group_of(name) in parts}
        write_safetensors(tmp_path / f"{file}.safetensors", part)
    write_config(tmp_path, tiny_model)
    config = distillation(str(tmp_path), "", {"conv_widths": (8, 8, 8, 8)})
    state, _ = start(config)
    assert {name for name in state if "image_encoder" not in name} == {
        name for name in folded.tensors if "image_encoder" not in name
    }
    names = [name for name in folded.tensors if name.endswith(".constants")]
    assert all(torch.equal(state[name], folded.tensors[name]) for name in names)


def test_only_the_image_encoder_adapters_and_details_may_differ(tmp_path, tiny_model):
    save(tmp_path, tiny_model)
    config = distillation(str(tmp_path), "", {"ffn_dim": 64})
    with pytest.raises(ArtifactError, match="the image encoder, and add adapters and mask_detail"):
        start(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": {"colour": 1}}, "sizes names colour, which no model has"),
        ({"sizes": {"vit_depth": "many"}}, "vit_depth must be a whole number"),
        ({"sizes": {"vit_depth": 2}, "model": "sam3i-nano"}, "leave model empty"),
        ({"kept_blocks": (1, 0)}, "kept_blocks must ascend"),
        ({"kept_blocks": (0, 1)}, "2 kept_blocks want vit_depth of that number"),
        ({"teacher": TeacherConfig()}, "stage 'distill' learns from a teacher"),
        ({"sizes": {"mask_detail": 4}}, "leave mask_detail out of sizes"),
        ({"shard": True}, "a teacher, other sizes and muon need the whole model"),
    ],
)
def test_configs_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        replace(distillation("weights", "pictures", {}), **change)


def test_a_config_survives_its_json():
    sizes = smaller(SAM3I_NANO, "repvit-m0.9", 0.5) | {"adapter_scale": 0.5}
    config = distillation("weights", "pictures", sizes, vocabulary="shapes")
    assert TrainConfig.from_json(config.to_json()) == config
    with pytest.raises(TrainingError, match="sizes"):
        TrainConfig.from_json(config.to_json() | {"sizes": {"vit_depth": None}})


def test_the_teacher_sees_pictures_of_the_students_side(tmp_path, tiny_model):
    save(tmp_path, tiny_model)
    config = distillation(str(tmp_path), "", {})
    assert open_teacher(config, 128).config.image_size == 128
