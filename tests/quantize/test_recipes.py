from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sam3i_edge.model.config import SAM3I_NANO, SAM3I_OFFICIAL
from sam3i_edge.model.sam3i import SAM3I, adapter_of
from sam3i_edge.quantize.recipes import RECIPES, Recipe

QUANTIZED = {
    "image_encoder.stem.0",
    "image_encoder.stages.1.blocks.0.conv2.0",
    "image_encoder.neck.2",
    "geometry_encoder.final_proj",
    "text_encoder.token_embedding",
    "text_encoder.layers.0.attn.q_proj",
    "text_encoder.layers.0.mlp.fc1",
    "text_encoder.layers.0.adapter.complex.attn.v_proj",
    "text_encoder.layers.0.adapter.simple.up_proj",
    "text_encoder.projection",
    "detector.fusion_encoder.layers.0.cross_attn.k_proj",
    "detector.decoder.layers.1.mlp.fc2",
    "detector.decoder.ref_point_head.layers.0",
    "detector.mask_decoder.pixel_decoder.conv_layers.1",
    "detector.mask_decoder.instance_proj",
}
FLOAT = {
    "detector.scoring.query_proj",
    "detector.scoring.prompt_mlp.layers.0",
    "detector.decoder.box_head.layers.2",
    "detector.decoder.presence_head.layers.0",
    "detector.decoder.box_bias_x.layers.0",
    "detector.decoder.box_bias_y.layers.1",
    "detector.fusion_encoder.layers.0.adapter.simple.down_proj",
    "detector.decoder.layers.0.adapter.bridge.up_proj",
    "detector.mask_decoder.mask_embedders.concept.layers.0",
    "detector.mask_decoder.mask_embedders.complex.layers.2",
    "detector.mask_decoder.semantic_proj",
    "detector.decoder.query_embed",
    "geometry_encoder.label_embed",
}
LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding)


@pytest.mark.parametrize("recipe", RECIPES)
def test_heads_and_what_is_gathered_by_level_stay_float(model, recipe):
    names = set(RECIPES[recipe].modules(model))
    every = {name for name, module in model.named_modules() if isinstance(module, LAYERS)}
    assert every >= QUANTIZED
    assert every >= FLOAT
    assert names >= QUANTIZED
    assert not names & FLOAT
    for name in every - names:
        # Nothing of the encoders is left out, but learned tokens.
        assert name.startswith("detector.") or name.endswith(("cls_embed", "label_embed")), name
    assert not [name for name in names if name.startswith("detector.") and adapter_of(f"{name}.weight")]


def test_the_official_model_keeps_only_heads_float():
    with torch.device("meta"):
        model = SAM3I(replace(SAM3I_OFFICIAL, vit_depth=2, vit_global_blocks=(1,), text_layers=1))
    names = RECIPES["int8"].modules(model)
    kinds = {RECIPES["int8"].kind(name, module) for name, module in names.items()}
    assert kinds == {"linear", "conv2d", "conv_transpose2d", "embedding"}
    kept = {n for n, m in model.named_modules() if isinstance(m, LAYERS[:3])} - names.keys()
    assert {name.split(".")[1] for name in kept} == {"fusion_encoder", "decoder", "scoring", "mask_decoder"}
    assert all(".adapter." in name for name in kept if name.startswith("detector.fusion_encoder."))


def test_a_group_that_does_not_divide_takes_8_bits(model):
    recipe = RECIPES["int4"]
    modules = recipe.modules(model)
    by_name = {name: recipe.bits(name, module) for name, module in modules.items()}
    assert by_name["text_encoder.layers.0.mlp.fc2"] == 4  # 32 inputs
    assert by_name["text_encoder.layers.0.mlp.fc1"] == 8  # 16 inputs
    assert by_name["image_encoder.neck.0"] == 8  # a convolution
    assert recipe.bits("x", nn.Linear(48, 32)) == 8
    assert recipe.bits("x", nn.Linear(64, 32)) == 4
    assert recipe.bits("detector.decoder.layers.0.mlp.fc1", nn.Linear(64, 32)) == 8
    assert replace(recipe, group=16).bits("x", nn.Linear(48, 32)) == 4
    assert RECIPES["int8"].bits("x", nn.Linear(64, 32)) == 8


def test_most_of_nano_is_in_groups_of_four_bits():
    with torch.device("meta"):
        model = SAM3I(SAM3I_NANO)
    recipe = RECIPES["int4"]
    linear = {n: m for n, m in recipe.modules(model).items() if isinstance(m, nn.Linear)}
    four = sum(m.weight.numel() for n, m in linear.items() if recipe.bits(n, m) == 4)
    assert four > 0.7 * sum(m.weight.numel() for m in linear.values())


def test_patterns_keep_layers_float(model):
    recipe = replace(RECIPES["int8"], keep_float=("text_encoder.*",))
    names = recipe.modules(model)
    assert not [name for name in names if name.startswith("text_encoder.")]
    assert "detector.scoring.query_proj" in names
    # A bottleneck's layers give away their weights and are never called: no pattern is needed for them.
    assert not [name for name in names if name.startswith("detector.") and ".adapter." in name]


def test_subclasses_of_layers_are_not_taken(model):
    class Own(nn.Linear):
        pass

    assert RECIPES["int8"].kind("text_encoder.projection", Own(4, 4)) is None
    assert RECIPES["int8"].kind("text_encoder.projection", nn.Linear(4, 4)) == "linear"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"linear_bits": 5}, "linear_bits must be 4 or 8, got 5"),
        ({"group": 0}, "group must be at least 1, got 0"),
        ({"linear_bits": 4, "static_activations": True}, "static int8 activations go with 8-bit weights"),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(name="own", **values)


def test_the_three_recipes():
    assert {name: (r.linear_bits, r.static_activations) for name, r in RECIPES.items()} == {
        "int8": (8, True),
        "int8w": (8, False),
        "int4": (4, False),
    }
