"""LiteRT's converter, on a small model; graph by graph, since each takes it seconds."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.errors import ExportError
from sam3i_edge.export import variants
from sam3i_edge.model.graph_specs import GraphSpec
from sam3i_edge.quantize.spec import Layer, QuantSpec
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


class Layers(nn.Module):
    """One layer of each kind, with what stands between them in image encoders."""

    def __init__(self, spec: QuantSpec) -> None:
        super().__init__()
        self.depthwise, self.dense, self.up, self.linear, self.table = (
            spec.module(name) for name in spec.layers
        )

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        up = self.up(F.relu6(self.dense(F.relu6(self.depthwise(x)))))
        return up, self.linear(up[:, :, 3, 5]), self.table(ids)


@pytest.mark.slow
@pytest.mark.usefixtures("_converter")
@pytest.mark.parametrize("static", [True, False])
def test_every_kind_of_layer_keeps_its_integers(tmp_path, static):
    rng = np.random.default_rng(9)
    kinds = {
        "depthwise": ("conv2d", (8, 1, 3, 3), {"stride": [2, 2], "padding": [1, 1], "groups": 8}),
        "dense": ("conv2d", (12, 8, 1, 1), {}),
        "up": ("conv_transpose2d", (12, 6, 2, 2), {"stride": [2, 2]}),
        "linear": ("linear", (10, 6), {}),
        "table": ("embedding", (40, 10), {}),
    }
    layers, tensors = {}, {}
    for name, (kind, shape, options) in kinds.items():
        scales = (
            {
                "input_scale": 0.03125,
                "output_scale": None if kind == "linear" else 0.0625,
                "input_zero": -128 if name in ("dense", "up") else 0,
                "output_zero": -128 if name in ("depthwise", "dense") else 0,
            }
            if static and kind != "embedding"
            else {}
        )
        layers[name] = Layer(kind=kind, bits=8, options=options, **scales)
        channels = shape[1 if kind == "conv_transpose2d" else 0]
        tensors[f"{name}.weight"] = torch.from_numpy(rng.integers(-127, 128, shape).astype(np.int8))
        scale = rng.uniform(0.001, 0.004, channels).astype(np.float16).astype(np.float32)
        tensors[f"{name}.weight_scale"] = torch.from_numpy(scale)
        if kind == "embedding":
            continue
        tensors[f"{name}.bias"] = torch.from_numpy(
            np.rint(rng.normal(size=channels) * 9).astype(np.float32) * scale / 32
        )
    spec = QuantSpec("int8", layers, tensors)
    x = torch.from_numpy(rng.normal(size=(1, 8, 16, 16)).astype(np.float32))
    ids = torch.tensor([[3, 39, 0, 7]])
    graph = GraphSpec("layers", Layers(spec).eval(), {"x": x, "ids": ids}, ("map", "row", "rows"))
    given = {"x": x.numpy(), "ids": ids.numpy()}
    wanted, path = graph.run(given), tmp_path / "layers.tflite"
    litert_variant.write_tflite(graph, path, quantized=True)
    assert litert_variant.check_integers(spec, {"layers": path}) == 5
    changed = replace(spec, tensors=tensors | {"dense.weight": -tensors["dense.weight"]})
    with pytest.raises(ExportError, match=r"of 1 quantized layers are in no \.tflite, the first is dense"):
        litert_variant.check_integers(changed, {"layers": path})
    found = open_runtime("litert", path, "cpu", threads=1).run(given)
    np.testing.assert_array_equal(found["rows"], wanted["rows"])
    for name, value in wanted.items():
        differ = np.abs(found[name] - value)
        assert differ.mean() < (0.05 if static else 1e-5) * value.std(), name


def test_a_missing_converter_is_said_with_its_line(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    config = exported.model.config
    with pytest.raises(
        ExportError, match=r"converter cannot be imported .*: pip install --no-deps -r .*requirements"
    ):
        litert_variant.convert_graph(
            exported.run / "weights", config, 0, "image_encoder", tmp_path / "x.tflite", "fp32"
        )
