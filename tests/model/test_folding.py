"""Adapters that are constants, replaced: the same bits, less memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import official

from sam3i_edge.levels import LEVELS
from sam3i_edge.model.folding import ConstantTextAdapter, FoldedAdapter, fold, site_gates, unfold
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import build_model


def _silence(model: SAM3I, *last: str) -> None:
    """Zeroes the weights, not the biases, of every parameter whose name ends so."""
    with torch.no_grad():
        found = [p for name, p in model.named_parameters() if ".adapter." in name and name.endswith(last)]
        assert found
        for parameter in found:
            parameter.zero_()


def _folded(model: SAM3I) -> tuple[SAM3I, int, int]:
    folded = fold(model.state_dict(), site_gates(model))
    return build_model(model.config, folded.tensors), folded.adapters, folded.bytes_saved


# The released initialisation, all of it or the part that its training leaves in place; and one path alone.
CASES = {
    "everything as released": ("up_proj.weight", "o_proj.weight"),
    "value instead of output projection": ("up_proj.weight", "attn.v_proj.weight"),
    "decoder's simple adapters have learned": (
        "attn.o_proj.weight", "text_encoder.layers.0.adapter.simple.up_proj.weight", "complex.up_proj.weight",
        "bridge.up_proj.weight",
    ),
    "only the complex path is constant": ("complex.up_proj.weight", "bridge.up_proj.weight"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("level", LEVELS)
def test_folding_changes_nothing(case: str, level: str) -> None:
    model = official.build()
    _silence(model, *CASES[case])
    folded, adapters, saved = _folded(model)
    assert adapters > 0
    count = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in folded.parameters())
    assert saved == 4 * count > 0
    _, want = official.predict(model, level)
    _, got = official.predict(folded, level)
    # Attention averages equal values, whose weights add up to 1 but for rounding.
    exact = "value" not in case
    for name in ("logits", "boxes", "presence", "mask_logits", "fused", "queries"):
        a, b = getattr(got, name), getattr(want, name)
        assert torch.equal(a, b) if exact else torch.allclose(a, b, rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("case", CASES)
def test_what_was_folded_can_learn_again(case: str) -> None:
    """It answers the same, and is whole."""
    model, fresh = official.build(), SAM3I(official.build().config)
    _silence(model, *CASES[case])
    folded = fold(model.state_dict(), site_gates(model))
    whole = unfold(folded.tensors, fresh.state_dict(), site_gates(fresh))
    again = unfold(whole, fresh.state_dict(), site_gates(fresh))
    assert all(again[name] is value for name, value in whole.items())
    fresh.load_state_dict(whole)
    for level in LEVELS:
        _, want = official.predict(model, level)
        _, got = official.predict(fresh.eval(), level)
        for name in ("logits", "boxes", "mask_logits", "fused"):
            torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-4, atol=1e-4)


def test_everything_as_released_becomes_vectors() -> None:
    model = official.build()
    _silence(model, *CASES["everything as released"])
    folded, adapters, _ = _folded(model)
    c = model.config
    assert adapters == 3 * (c.text_layers + c.encoder_layers + c.decoder_layers)
    kinds = {type(m).__name__ for name, m in folded.named_modules() if name.endswith(("adapter", ".simple"))}
    assert {ConstantTextAdapter.__name__, FoldedAdapter.__name__} <= kinds
    assert not any("down_proj" in name for name, _ in folded.named_parameters())


def test_adapters_that_learned_are_left_alone() -> None:
    model = official.build()
    folded = fold(model.state_dict(), site_gates(model))
    assert (folded.adapters, folded.bytes_saved) == (0, 0)
    assert folded.tensors.keys() == model.state_dict().keys()


def test_a_bridge_that_varies_keeps_the_fusion_site_but_not_the_decoders() -> None:
    """The decoder's complex path has no inner skip: a constant at its end makes all of it constant."""
    model = official.build()
    _silence(model, "complex.up_proj.weight")
    tensors = fold(model.state_dict(), site_gates(model)).tensors
    assert "detector.decoder.layers.0.adapter.complex.constants" in tensors
    assert "detector.fusion_encoder.layers.0.adapter.complex.up_proj.weight" in tensors
