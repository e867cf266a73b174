"""Further variants of a bundle: written, compared and listed; what fails is left out and says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, load

from sam3i_edge import Segmenter
from sam3i_edge.agreement import LIMITS
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.errors import ArtifactError, ExportError
from sam3i_edge.export import eager_variant
from sam3i_edge.export.targets import TARGETS
from sam3i_edge.export.variants import add_variants
from sam3i_edge.install_hint import install_hint

FP32 = LIMITS["fp32"]


def test_adds_fp16_and_eager_to_a_bundle(exporting, exported, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(LIMITS, "fp16", exporting.ROUGH)  # the weights are random, and so are the pairs
    out = tmp_path / "more"
    manifest, rows = add_variants(Bundle.open(exported.bundle), out, ["onnx"], ["fp16"], pairs=12)
    assert list(manifest.variants) == ["onnx-fp32", "onnx-fp16"]
    assert [row.status for row in rows] == ["ok"]
    assert rows[0].agreement.score > 0  # other numbers than the float model's
    data = [(out / name / "weights.data").stat().st_size for name in manifest.variants]
    assert data[1] < 0.6 * data[0]
    assert _types(out / "onnx-fp16/detector.onnx", "MatMul") == {TensorProto.FLOAT16}
    boxes = _types(out / "onnx-fp16/detector.onnx", "Sin", "Cos", "Log", "Sign", "TopK")
    assert boxes == {TensorProto.FLOAT}  # float16 there moves boxes by tenths of a pixel
    again, _ = add_variants(Bundle.open(out), out, ["eager"], ["fp32", "fp16"], pairs=12, overwrite=True)
    assert again.variants["eager-fp32"].agreement["min_iou"] == 1.0
    assert 0 < again.variants["eager-fp16"].agreement["score"] < 0.1
    image = draw_scene(np.random.default_rng(3)).pixels()
    with Segmenter(out, runtime="eager") as eager, Segmenter(out) as onnx:
        one, other = (s.segment(image, "the red star", level="simple") for s in (eager, onnx))
        assert eager.info.runtime == "eager"
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def _types(path: Path, *operators: str) -> set[int]:
    """Types of the first inputs of these operators of a graph."""
    graph = load(path, load_external_data=False).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    nodes = [node for node in graph.node if node.op_type in operators]
    return {types[node.input[0]] for node in nodes if node.input[0] in types}


def test_what_fails_leaves_nothing_and_says_why(exported, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(LIMITS, "fp16", replace(LIMITS["fp16"], mean_iou=1.1))
    out = tmp_path / "some"
    manifest, rows = add_variants(Bundle.open(exported.bundle), out, ["eager"], ["fp16", "fp32"], pairs=12)
    assert list(manifest.variants) == ["onnx-fp32", "eager-fp32"]
    assert [row.variant for row in rows] == ["", "eager-fp32"]
    assert "fp16: 1 - mean_iou" in rows[0].status
    assert "the worst pair is number" in rows[0].status
    assert not (out / "eager-fp16").exists()
    with pytest.raises(ExportError, match="fp16: 1 - mean_iou"):
        add_variants(Bundle.open(exported.bundle), tmp_path / "none", ["eager"], ["fp16"], pairs=12)
    assert not (tmp_path / "none").exists()


def test_what_misses_the_gate_shows_its_figures_and_worst_pair(exported, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "some"

    def misses(*arguments):
        first = "write" not in asked
        asked.add("write")
        monkeypatch.setitem(LIMITS, "fp32", replace(FP32, min_iou=1.1 if first else FP32.min_iou))
        return write(*arguments)

    asked, write = set(), eager_variant.write
    monkeypatch.setattr(eager_variant, "write", misses)
    monkeypatch.setitem(TARGETS, "openvino", TARGETS["eager"])
    _, rows = add_variants(
        Bundle.open(exported.bundle), out, ["openvino", "eager"], ["fp32"], pairs=12, overwrite=True
    )
    assert [row.variant for row in rows] == ["", "eager-fp32"]
    assert rows[0].agreement == rows[1].agreement
    assert "min_iou" in rows[0].status
    assert "drawn in" in rows[0].status
    assert {path.name for path in tmp_path.iterdir()} == {"some", "some.openvino-fp32.worst-pair.png"}


def test_a_variant_that_is_there_already_is_replaced(exported, tmp_path: Path) -> None:
    out = tmp_path / "out"
    add_variants(Bundle.open(exported.bundle), out, ["eager"], ["fp32"], pairs=12)
    manifest, _ = add_variants(Bundle.open(out), out, ["eager"], ["fp32"], pairs=18, overwrite=True)
    assert list(manifest.variants) == ["onnx-fp32", "eager-fp32"]
    assert manifest.variants["eager-fp32"].agreement["pairs"] == 18
    Bundle.open(out).verify()


def test_a_missing_framework_is_a_row_with_the_pip_line(exported, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(TARGETS, "openvino", replace(TARGETS["openvino"], module="no_such_framework"))
    _, rows = add_variants(
        Bundle.open(exported.bundle), tmp_path / "out", ["openvino", "eager"], ["fp32"], pairs=12
    )
    assert install_hint("export,openvino") in rows[0].status
    assert rows[1].status == "ok"


def test_bad_requests(exported, tmp_path: Path) -> None:
    bundle = Bundle.open(exported.bundle)
    with pytest.raises(ValueError, match="unknown target 'tflite'; choose from onnx"):
        add_variants(bundle, tmp_path / "x", ["tflite"], ["fp16"])
    with pytest.raises(ValueError, match="unknown precision 'int3'"):
        add_variants(bundle, tmp_path / "x", ["onnx"], ["int3"])
    with pytest.raises(ArtifactError, match=r"has no int8 and no int4 model: .* --recipe int8,int4'"):
        add_variants(bundle, tmp_path / "x", ["onnx", "openvino"], ["int8", "int8-bf16", "int4"])
    assert not list(tmp_path.iterdir())
