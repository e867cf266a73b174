"""LiteRT's converter, on a small model; graph by graph, since each takes it seconds."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.errors import ExportError
from sam3i_edge.export import variants
from sam3i_edge.model.graph_specs import graph_specs
from sam3i_edge.model.weights import read_config
from sam3i_edge.quantize.spec import QuantSpec
from sam3i_edge.runtimes import open_runtime

pytest.importorskip("ai_edge_litert")

from sam3i_edge.export.litert import litert_variant


@pytest.fixture(scope="module")
def _converter():
    pytest.importorskip("litert_torch", reason="needs export/litert/requirements.txt")


@pytest.mark.slow
@pytest.mark.usefixtures("_converter")
def test_a_bundle_gets_graphs_that_answer_the_same(exported, tmp_path):
    bundle = Bundle.open(shutil.copytree(exported.bundle, tmp_path / "source"))
    manifest, rows = variants.add_variants(bundle, tmp_path / "out", ["litert"], ["fp32"], pairs=24)
    assert [(row.variant, row.status) for row in rows] == [("litert-fp32", "ok")]
    assert manifest.variants["litert-fp32"].versions.keys() >= {"litert-torch", "ai-edge-litert"}
    image = draw_scene(np.random.default_rng(5), (90, 120)).image
    found = {}
    for runtime in ("litert", "onnxruntime"):
        with Segmenter(tmp_path / "out", runtime=runtime, device="cpu", threads=1) as segmenter:
            assert segmenter.info.runtime == runtime
            found[runtime] = segmenter.segment(image, "every star", threshold=0.05)
    ours, other = found["litert"], found["onnxruntime"]
    assert len(ours.scores) == len(other.scores) > 0
    np.testing.assert_allclose(ours.scores, other.scores, atol=1e-4)
    np.testing.assert_allclose(ours.boxes, other.boxes, atol=0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("_converter")
def test_integers_are_those_of_the_spec(quantized, tmp_path):
    """Convolutions and linear layers, with rounded activations; and one changed integer is found."""
    root, path = quantized.bundle.root, tmp_path / "image_encoder.tflite"
    source, config = root / "quant/int8.safetensors", read_config(root / "weights")
    litert_variant.convert_graph(source, config, 0, "image_encoder", path, "int8")
    spec = QuantSpec.load(source, "image_encoder")
    assert litert_variant.check_integers(spec, {"image_encoder": path}) == len(spec.layers) > 10
    model = next(one for one in graph_specs(spec.build(config)) if one.name == "image_encoder")
    inputs = {"pixel_values": np.random.default_rng(2).normal(size=(1, 3, 64, 64)).astype(np.float32)}
    wanted = model.run(inputs)
    found = open_runtime("litert", path, "cpu", threads=1).run(inputs)
    for name, value in wanted.items():
        assert np.abs(found[name] - value).mean() < 0.01 * np.abs(value).max(), name
    name = next(iter(spec.layers))
    changed = dict(spec.tensors) | {f"{name}.weight": -spec.tensors[f"{name}.weight"]}
    with pytest.raises(ExportError, match=f"of 1 quantized layers are in no .tflite, the first is {name}"):
        litert_variant.check_integers(replace(spec, tensors=changed), {"image_encoder": path})


def test_a_missing_converter_is_said_with_its_line(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    config = exported.model.config
    with pytest.raises(
        ExportError, match=r"converter cannot be imported .*: pip install --no-deps -r .*requirements"
    ):
        litert_variant.convert_graph(
            exported.run / "weights", config, 0, "image_encoder", tmp_path / "x.tflite", "fp32"
        )
