from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable, UnknownDevice
from sam3i_edge.levels import LEVELS
from sam3i_edge.measure.plan import plan, variant_bytes


def test_every_variant_that_runs_is_a_row(wrong_bundle: Bundle) -> None:
    found = plan([wrong_bundle], device="cpu")
    assert [(row.runtime, row.precision) for row in found.rows] == [
        ("onnxruntime", "fp32"),
        ("onnxruntime", "int8"),
    ]
    assert all(row.levels == LEVELS for row in found.rows)
    assert found.references[wrong_bundle.root].precision == "fp32"


def test_the_float_row_is_there_even_if_another_precision_is_asked_for(wrong_bundle: Bundle) -> None:
    found = plan([wrong_bundle], device="cpu", precision="int8")
    assert [row.precision for row in found.rows] == ["int8"]
    assert found.references[wrong_bundle.root].variant == "onnx-fp32"


def test_equal_files_are_one_row_and_equal_names_are_told_apart(
    tiny_bundle: Bundle, wrong_bundle: Bundle, tmp_path: Path, write_tiny_bundle: Any
) -> None:
    found = plan([tiny_bundle, wrong_bundle], device="cpu")
    assert [row.variant for row in found.rows] == ["onnx-fp32", "onnx-int8"]
    shutil.copytree(wrong_bundle.root, tmp_path / "copy")
    boxes = write_tiny_bundle(tmp_path / "boxes", boxes=2)
    found = plan([tiny_bundle, boxes, Bundle.open(tmp_path / "copy")], device="cpu", precision="fp32")
    assert [row.model for row in found.rows] == ["tiny (tiny)", "tiny (boxes)"]


def test_size_is_that_of_the_files_it_reads(wrong_bundle: Bundle) -> None:
    folder = wrong_bundle.root / "onnx-int8"
    assert variant_bytes(wrong_bundle, "onnx-int8") == sum(p.stat().st_size for p in folder.iterdir())


def test_what_cannot_run_here_is_told_with_the_reason(tiny_bundle: Bundle) -> None:
    variants = tiny_bundle.manifest.variants
    half = variants["onnx-fp32"].model_copy(update={"precision": "fp16"})
    manifest = tiny_bundle.manifest.model_copy(update={"variants": {**variants, "onnx-fp16": half}})
    found = plan([Bundle(tiny_bundle.root, manifest)], device="cpu")
    assert [row.precision for row in found.rows] == ["fp32"]
    (skipped,) = found.skipped
    assert (skipped.precision, skipped.device) == ("fp16", "cpu")
    assert "does not run fp16" in skipped.reason


def test_nothing_to_measure_says_what_there_is(tiny_bundle: Bundle) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"precision int4: the model has onnxruntime fp32"):
        plan([tiny_bundle], precision="int4")
    with pytest.raises(UnknownDevice, match="unknown device 'abacus'"):
        plan([tiny_bundle], device="abacus")
    with pytest.raises(ValueError, match="unknown runtime 'tflite'; choose from auto"):
        plan([tiny_bundle], runtime="tflite")


def _resized(bundle: Bundle, folder: Path, side: int) -> Bundle:
    """The bundle under the same name, said to take pictures of another side."""
    shutil.copytree(bundle.root, folder)
    spec = bundle.manifest.preprocessing.model_copy(update={"image_size": side})
    return Bundle(folder, bundle.manifest.model_copy(update={"preprocessing": spec}))


def test_rows_of_several_sides_are_labelled_and_one_is_chosen(
    tiny_bundle: Bundle, tmp_path: Path, write_tiny_bundle: Any
) -> None:
    other = _resized(write_tiny_bundle(tmp_path / "other", boxes=2), tmp_path / "large", 64)
    side = tiny_bundle.manifest.preprocessing.image_size
    found = plan([tiny_bundle, other], device="cpu")
    assert [(row.model, row.side) for row in found.rows] == [(f"tiny {side} px", side), ("tiny 64 px", 64)]
    (row,) = plan([tiny_bundle, other], device="cpu", resolution=64).rows
    assert (row.model, row.bundle.root) == ("tiny", other.root)


def test_a_side_that_no_bundle_has_says_how_to_make_one(tiny_bundle: Bundle) -> None:
    side = tiny_bundle.manifest.preprocessing.image_size
    with pytest.raises(ArtifactError, match=rf"takes pictures of 1008 px \(tiny {side}\).*--resolution 1008"):
        plan([tiny_bundle], resolution=1008)
