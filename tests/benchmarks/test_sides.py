"""Curves over the side of the input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sam3i_edge.bundle.folder import find_bundle
from sam3i_edge.export import isolated
from sam3i_edge.model.config import SAM3I_NANO, SAM3I_NANO_256, SAM3I_OFFICIAL
from studies import sides


def test_the_sides_are_those_that_the_model_allows() -> None:
    assert sides.sides_of(SAM3I_OFFICIAL) == [336, 672, 1008]
    for config in (SAM3I_NANO, SAM3I_NANO_256):
        assert config.image_size in sides.sides_of(config)
        for side in sides.sides_of(config):
            replace(config, image_size=side)  # which refuses one that does not divide


@pytest.mark.slow  # exports two graphs
def test_every_side_is_exported_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "_CONVOLUTIONAL", (32, 160))
    monkeypatch.setattr(sides, "GRAPHS", ("image_encoder",))
    monkeypatch.setattr(sides, "hold_to", lambda _: None)
    monkeypatch.setattr(isolated, "call", lambda function, *given: (function(*given), 0))
    told: list[str] = []
    weights = find_bundle("sam3i-nano") / "weights"
    (curve,) = sides.sides_curves("nano", Path(weights), 1, turns=5, tell=told.append)
    assert told == ["nano: 32 px", "nano: 160 px"]
    assert [point.x for point in curve.points] == [32, 160]
    assert all(0 < point.p50 <= point.p90 for point in curve.points)
    assert (curve.title, curve.x, curve.y) == ("nano: image_encoder by side, fp32", "px", "ms")
