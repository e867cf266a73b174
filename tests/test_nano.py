"""The bundled model: its limits, and that it does what it is for."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sam3i_edge import Segmenter
from sam3i_edge.agreement import Agreement, check
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.data.annotations import ANNOTATIONS, IMAGES, read_annotations, write_scenes
from sam3i_edge.evaluate.run import evaluate
from sam3i_edge.model.graph_specs import graph_specs
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import load_model

MIB = 2**20


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(find_bundle("sam3i-nano"))


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> SAM3I:
    return load_model(bundle.root / "weights").requires_grad_(False)


def test_size(bundle: Bundle, model: SAM3I) -> None:
    assert sum(p.numel() for p in model.parameters()) <= 6_000_000
    assert sum(f.stat().st_size for f in bundle.root.parent.rglob("*") if f.is_file()) <= 32 * MIB
    assert bundle.tokenizer().vocab_size <= 4096


def test_operations(model: SAM3I) -> None:
    """At most 3 GFLOP (2 x multiply-add) for the image and one instruction's detector."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for spec in graph_specs(model):
            if not spec.name.startswith("text_encoder"):
                spec.module(*spec.inputs.values())
    assert 0 < counter.get_total_flops() <= 3e9


def test_recorded_agreement_passes_the_gate(bundle: Bundle) -> None:
    for variant in bundle.manifest.variants.values():
        figures = variant.agreement
        assert figures["pairs"] >= 200
        # A bundle from before these two were recorded: 99 % keep what all keep.
        largest = {f"{name}_p99": figures[name] for name in ("score", "box_px")}
        known = {field.name for field in fields(Agreement)}
        kept = {name: value for name, value in (largest | figures).items() if name in known}
        check(Agreement(**kept), variant.precision)  # type: ignore[arg-type]


def test_accuracy_on_scenes_that_it_never_saw(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A floor well below the figures in docs/nano.md: a broken export or preprocessing falls through it."""
    folder = tmp_path_factory.mktemp("scenes") / "drawn"
    write_scenes(folder, 40, 987_654)
    with Segmenter("sam3i-nano", threads=2) as segmenter:
        report = evaluate(segmenter, read_annotations(folder / ANNOTATIONS), folder / IMAGES)
    assert report.cell("concept", "all").giou > 0.8
