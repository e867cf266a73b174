"""The bundled model of tables: its limits, and that it knows what stands on a table."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from sam3i_edge import Segmenter
from sam3i_edge.agreement import Agreement, check
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.cli.examples import TABLES
from sam3i_edge.data.sources.scene_file import SceneFileSource
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import load_model

MIB = 2**20


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(find_bundle("sam3i-table")).verify()


def test_size(bundle: Bundle) -> None:
    model: SAM3I = load_model(bundle.weights())
    assert sum(p.numel() for p in model.parameters()) <= 6_000_000
    assert sum(f.stat().st_size for f in bundle.root.rglob("*") if f.is_file()) <= 21 * MIB


def test_recorded_agreement_passes_the_gate(bundle: Bundle) -> None:
    (variant,) = bundle.manifest.variants.values()
    assert variant.precision == "int8w"
    assert variant.agreement["pairs"] >= 200
    compared = {field.name: variant.agreement[field.name] for field in fields(Agreement)}
    check(Agreement(**compared), variant.precision)  # type: ignore[arg-type]


def test_it_says_what_it_was_trained_on(bundle: Bundle) -> None:
    assert bundle.manifest.notes == ("trained on rendered tables and drawn shapes, not on photographs",)


def test_it_knows_what_stands_on_tables_that_it_never_saw() -> None:
    tables, ious = SceneFileSource(TABLES, load_vocabulary("tabletop")), []
    with Segmenter("sam3i-table", threads=1) as segmenter:
        assert segmenter.info.precision == "int8w"  # the one that the bundle has for this device
        for number in range(len(tables)):
            scene = tables.scene(number)
            encoded = segmenter.encode(scene.pixels())
            for category in sorted({item.category for item in scene.objects}):
                found = encoded.segment(category, level="concept").merged
                there = np.logical_or.reduce([o.mask for o in scene.objects if o.category == category])
                ious.append((found & there).sum() / (found | there).sum())
    assert np.mean(ious) > 0.6
