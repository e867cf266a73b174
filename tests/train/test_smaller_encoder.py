from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sam3i_edge.model.config import SAM3I_NANO, SAM3I_OFFICIAL, ModelConfig
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.student_variants import IMAGE_STUDENTS
from sam3i_edge.train.smaller_encoder import block_costs, choose_blocks, smaller, without_blocks

VIT = replace(
    SAM3I_NANO, image_size=56, backbone="vit", pretrain_image_size=28, window_size=2, vit_width=32,
    vit_depth=5, vit_heads=4, vit_mlp_dim=64, vit_global_blocks=(1, 3),
)  # fmt: skip


def changed(teacher, sizes):
    return ModelConfig.from_dict(teacher.to_dict() | sizes)


def parameters(config):
    with torch.device("meta"):
        return sum(p.numel() for p in SAM3I(config).image_encoder.parameters())


@pytest.mark.parametrize("backbone", ["", *IMAGE_STUDENTS])
def test_half_of_every_trunk_is_a_model(backbone):
    """Its maps have the teacher's shape, so that all else fits."""
    whole, half = (changed(SAM3I_NANO, smaller(SAM3I_NANO, backbone, width)) for width in (1.0, 0.5))
    assert (half.grid, half.d_model) == (SAM3I_NANO.grid, SAM3I_NANO.d_model)
    assert parameters(half) < 0.75 * parameters(whole)
    if backbone not in ("", "repvit-m0.9", "tinyvit-5m", "efficientvit-b0"):
        return  # larger ones of the same three families
    small = replace(half, image_size=64)
    maps = SAM3I(small).eval().image_encoder(torch.zeros(1, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [(1, 96, side, side) for side in (16, 8, 4)]


def test_a_narrow_vit_keeps_the_width_of_its_heads():
    assert smaller(SAM3I_OFFICIAL, width=0.5) == {"vit_width": 512, "vit_heads": 8, "vit_mlp_dim": 2368}
    assert smaller(SAM3I_OFFICIAL, "tinyvit-5m")["patch_size"] == 14
    assert "vit_width" not in smaller(
        SAM3I_OFFICIAL, "tinyvit-5m"
    )  # the teacher's, as released students have


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet'; choose from repvit-m0.9"):
        smaller(SAM3I_NANO, "resnet")
    for width in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="a share of the channels, above 0 and at most 1"):
            smaller(SAM3I_NANO, width=width)
    with pytest.raises(ValueError, match="a conv image encoder has no blocks to drop"):
        without_blocks(SAM3I_NANO, [0])
    for kept in ([], [1, 0], [0, 0], [3, 5]):
        with pytest.raises(ValueError, match="must ascend and be some of 0 to 4"):
            without_blocks(VIT, kept)


def test_blocks_that_are_kept_stay_global():
    assert without_blocks(VIT, [0, 1, 3, 4]) == {"vit_depth": 4, "vit_global_blocks": (1, 2)}
    assert without_blocks(VIT, [0, 2]) == {"vit_depth": 2, "vit_global_blocks": ()}


def test_a_block_that_does_nothing_costs_nothing_and_goes_first():
    torch.manual_seed(0)
    encoder = SAM3I(VIT).eval().image_encoder
    with torch.no_grad():
        for part in (encoder.backbone.blocks[2].attn.o_proj, encoder.backbone.blocks[2].mlp.fc2):
            part.weight.zero_()
            part.bias.zero_()
        encoder.backbone.blocks[4].mlp.fc2.weight.mul_(20)
    costs = dict(block_costs(encoder, [torch.rand(1, 3, 56, 56) for _ in range(2)]))
    assert costs[2] < 1e-12
    assert min(costs[n] for n in (0, 1, 3, 4)) > 1e-6
    assert choose_blocks(costs, 4, VIT.vit_global_blocks) == (0, 1, 3, 4)
    assert choose_blocks({0: 3.0, 1: 0.0, 2: 1.0, 3: 0.0, 4: 2.0}, 3, (1, 3)) == (0, 1, 3)
    for count in (1, 6):
        with pytest.raises(ValueError, match="can keep 2 to 5 blocks, got"):
            choose_blocks(costs, count, (1, 3))
