from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.model.config import SAM3I_NANO_256
from sam3i_edge.model.efficientnet import EfficientNetEncoder
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.quantize.batch_norm import fold_batch_norms
from sam3i_edge.quantize.ptq import relu_chains

SCRIPT = Path(__file__).parents[2] / "scripts" / "start_from_efficientnet.py"


@pytest.fixture(scope="module")
def encoder() -> EfficientNetEncoder:
    torch.manual_seed(0)
    made = EfficientNetEncoder(SAM3I_NANO_256).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics as a trained one has
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return made


def test_the_pyramid_has_the_strides_and_the_width_of_the_detector(encoder):
    maps = encoder(torch.randn(1, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [(1, 96, 16, 16), (1, 96, 8, 8), (1, 96, 4, 4)]


def test_each_level_reads_the_coarser_ones(encoder):
    """A stage at stride 32 that changes reaches the finest map."""
    images = torch.randn(1, 3, 64, 64)
    before = encoder(images)[0]
    last = encoder.neck[3]
    kept = last.bias.detach().clone()
    with torch.no_grad():
        last.bias += 1
    moved = encoder(images)[0] - before
    with torch.no_grad():
        last.bias.copy_(kept)
    assert torch.allclose(moved, torch.ones_like(moved), atol=1e-4)


def test_the_finest_level_alone_reads_the_map_of_stride_2(encoder):
    """Each of its cells reads the four of its own place; a new model's detail is nothing."""
    images = torch.randn(1, 3, 64, 64)
    before = encoder(images)
    assert not encoder.detail.weight.any()
    with torch.no_grad():
        encoder.detail.weight.normal_()
    fine = encoder.features(images)[0]
    after = encoder(images)
    moved = after[0] - before[0]
    group = slice(24, 48)  # of 96 channels in four groups, as the 16 of the finer map
    want = F.conv2d(fine[:, 4:8], encoder.detail.weight[group], stride=2)
    with torch.no_grad():
        encoder.detail.weight.zero_()
    torch.testing.assert_close(moved[:, group], want, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(after[1:], before[1:], strict=True))


def test_folding_leaves_the_pyramid_unchanged(encoder):
    images = torch.randn(2, 3, 64, 64)
    before = encoder(images)
    folded = EfficientNetEncoder(SAM3I_NANO_256).eval()
    folded.load_state_dict(encoder.state_dict())
    fold_batch_norms(folded)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    for one, other in zip(before, folded(images), strict=True):
        assert float((one - other).detach().abs().max()) <= 1e-5 * float(one.detach().abs().max())


def test_every_relu_between_two_convolutions_shares_their_scale(encoder):
    names = dict(encoder.named_modules())
    chains = list(relu_chains(nn.ModuleDict({"image": encoder})))
    blocks = sum(SAM3I_NANO_256.trunk_depths)
    assert len(chains) == 1 + 2 * blocks - 1  # the first block does not widen
    for producer, consumer in chains:
        first, second = (names[name.removeprefix("image.")] for name in (producer, consumer))
        assert first.out_channels == second.in_channels


def test_a_side_that_stride_32_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 32, got 240"):
        replace(SAM3I_NANO_256, image_size=240)


def test_the_model_keeps_its_size():
    assert sum(p.numel() for p in SAM3I(SAM3I_NANO_256).parameters()) <= 6_000_000


def test_released_names_become_ours(encoder):
    """As many blocks as the trunk has, and all of their tensors."""
    released = {"_conv_stem.weight": torch.zeros(32, 3, 3, 3)} | _norm("_bn0", 32)
    for number, (place, block) in enumerate(
        (name, module) for name, module in encoder.named_modules() if hasattr(module, "depthwise")
    ):
        assert place.startswith("stages.")
        for part, conv, norm in (("expand", "_expand_conv", "_bn0"), ("depthwise", "_depthwise_conv", "_bn1"),
                                 ("project", "_project_conv", "_bn2")):  # fmt: skip
            pair = getattr(block, part)
            if pair is not None:
                released[f"_blocks.{number}.{conv}.weight"] = torch.full_like(pair[0].weight, number)
                released |= _norm(f"_blocks.{number}.{norm}", pair[0].out_channels)
    released |= {"_conv_head.weight": torch.zeros(1)}
    tensors = runpy.run_path(str(SCRIPT))["trunk"](released, SAM3I_NANO_256.trunk_depths)
    ours = {
        f"image_encoder.{name}": value
        for name, value in encoder.state_dict().items()
        if not name.startswith(("neck.", "detail."))
    }
    assert tensors.keys() == ours.keys()
    assert all(tensors[name].shape == value.shape for name, value in ours.items())
    assert float(tensors["image_encoder.stages.3.1.project.0.weight"].mean()) == 6


def _norm(name: str, channels: int) -> dict[str, torch.Tensor]:
    parts = ("weight", "bias", "running_mean", "running_var")
    counter = {f"{name}.num_batches_tracked": torch.tensor(0)}
    return {f"{name}.{part}": torch.zeros(channels) for part in parts} | counter
