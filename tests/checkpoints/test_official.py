"""The official layouts at full size, by name and shape; and what a wrong file gives."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from official_files import FOLDER
from sam3i_edge.checkpoints.completion import LAYOUTS
from sam3i_edge.checkpoints.keys import convert_keys
from sam3i_edge.checkpoints.sizes import read_sizes
from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.config import PRESETS, ModelConfig
from sam3i_edge.model.sam3i import SAM3I, adapter_of

FIXTURES = Path(__file__).parents[1] / "fixtures"


def _meta_state(name: str) -> dict[str, torch.Tensor]:
    shapes = json.loads((FIXTURES / "keys" / f"{name}.json").read_text())
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def full_size() -> SAM3I:
    with torch.device("meta"):
        return SAM3I(PRESETS["sam3i"])


def test_official_size_has_the_official_parameters(full_size: SAM3I) -> None:
    assert full_size.config.grid == 72
    assert full_size.config.mask_size == 288
    count = Counter()
    for name, parameter in full_size.named_parameters():
        count[adapter_of(name)] += parameter.numel()
    # The official counts by level, the mask embedders among them.
    assert count["simple"] == 104_627_712
    assert count["bridge"] == 104_430_336
    assert count["complex"] == 104_627_712
    # transformers' count of the base, without what is dropped: coarsest neck level, pooled projection, third
    # pixel-decoder stage.
    dropped = (256 * 1024 + 256) + (256 * 256 * 9 + 256) + 524_288 + (256 * 256 * 9 + 3 * 256)
    assert count[None] == 840_376_374 - dropped


@pytest.mark.parametrize(("layout", "adapters"), [("sam3_pt", False), ("sam3i_stage3", True)])
def test_every_official_key_lands_once_in_the_right_shape(
    full_size: SAM3I, layout: str, adapters: bool
) -> None:
    converted = convert_keys(_meta_state(layout), LAYOUTS)
    wanted = {
        name: tuple(value.shape)
        for name, value in full_size.state_dict().items()
        if adapters or adapter_of(name) is None
    }
    assert {name: tuple(value.shape) for name, value in converted.tensors.items()} == wanted


def test_dropped_keys_are_reported_by_reason() -> None:
    dropped = convert_keys(_meta_state("sam3_pt"), LAYOUTS).dropped
    assert len(dropped["video tracker"]) == 309
    assert len(dropped["further necks, used by the tracker and for clicks only"]) == 22
    assert len(dropped["rotary tables, recomputed"]) == 32
    dropped = convert_keys(_meta_state("sam3i_stage3"), LAYOUTS).dropped
    assert len(dropped["training-only projectors"]) == 18


def test_the_orphan_text_tower_is_dropped_and_not_taken() -> None:
    state = torch.load(FOLDER / "sam3i_stage3.pt", weights_only=True)
    converted = convert_keys(state["model"], LAYOUTS)
    orphans = converted.dropped["second text tower, attached by a defect and unused"]
    assert len(orphans) == 17
    norm = converted.tensors["text_encoder.final_norm.weight"]
    assert torch.equal(norm, state["model"]["backbone.language_backbone.encoder.ln_final.weight"])
    assert not torch.equal(norm, state["model"]["backbone.text.encoder.ln_final.weight"])


def test_both_layouts_give_the_same_base() -> None:
    folder = FOLDER
    base = convert_keys(torch.load(folder / "sam3_base.pt", weights_only=True), LAYOUTS).tensors
    full = convert_keys(torch.load(folder / "sam3i_stage3.pt", weights_only=True)["model"], LAYOUTS).tensors
    assert base.keys() == {name for name in full if adapter_of(name) is None}
    assert all(torch.equal(value, full[name]) for name, value in base.items())


def test_unknown_keys_are_listed() -> None:
    state = {
        "backbone.vision_backbone.trunk.blocks.0.attn.rel_pos": torch.zeros(1),
        "head.weight": torch.zeros(1),
    }
    with pytest.raises(ArtifactError, match=r"2 checkpoint keys .*rel_pos, head\.weight"):
        convert_keys(state, LAYOUTS)


def test_config_takes_the_official_names() -> None:
    config = ModelConfig.from_dict(read_sizes(FOLDER / "config.json"))
    assert (config.vit_width, config.d_model, config.vit_global_blocks) == (64, 32, (1, 3))
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown model config fields vit_wdith"):
        ModelConfig.from_dict({"vit_wdith": 64})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_size": 1000}, "multiple of 14"),
        ({"image_size": 1022}, "do not tile"),
        ({"backbone": "swin"}, "'vit' or 'conv'"),
        ({"text_heads": 7}, "not a multiple of its 7 heads"),
        ({"window_size": 0}, "window_size must be a whole number from 1 to 1,048,576, got 0"),
        ({"image_size": 1_008_000}, "image_size must be a whole number from 1 to 8,192, got 1008000"),
        ({"vocab_size": 2**32}, "vocab_size must be a whole number from 1 to 1,048,576, got 4294967296"),
        ({"d_model": 10**400}, r"d_model must be a whole number .* got 1000"),
        ({"ffn_dim": "2048"}, "ffn_dim must be a whole number from 1 to 1,048,576, got '2048'"),
        ({"adapter_scale": float("inf")}, "adapter_scale must be a number within ±1,048,576, got inf"),
        ({"vit_global_blocks": 7}, "vit_global_blocks must be a list of numbers, got 7"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ModelConfig(**change)  # type: ignore[arg-type]
