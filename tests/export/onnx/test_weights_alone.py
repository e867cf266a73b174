"""Layers of which the weights alone are integers: floats are made of them once, when a session opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from sam3i_edge.errors import ExportError
from sam3i_edge.export.onnx import quantized_nodes
from sam3i_edge.export.onnx.graph_file import write_graph
from sam3i_edge.export.onnx.onnx_variant import check_integers
from sam3i_edge.export.openvino.integers import check_integers as check_openvino
from sam3i_edge.export.openvino.ir import convert_graphs
from sam3i_edge.model.graph_specs import GraphSpec
from sam3i_edge.quantize.calibration import Seen
from sam3i_edge.quantize.ptq import quantize_module
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.quantize.spec import QuantSpec

LAYERS = {
    "conv2d": nn.Conv2d(6, 8, 3, padding=1),
    "depthwise": nn.Conv2d(6, 6, 3, padding=1, groups=6),
    "conv_transpose2d": nn.ConvTranspose2d(6, 5, 3, stride=2),
    "linear": nn.Linear(6, 7),
}


class One(nn.Module):
    """One layer of channels-first values."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if self.layer.kind != "linear" else self.layer(x.movedim(1, -1))


def _written(folder: Path, name: str) -> tuple[QuantSpec, GraphSpec, Path]:
    torch.manual_seed(1)
    layer, x = LAYERS[name], torch.randn(1, 6, 5, 7)
    kind = "conv2d" if name == "depthwise" else name
    seen = Seen.of(6)
    seen.add(x.movedim(1, -1).reshape(-1, 6))
    quantized, tensors = quantize_module(kind, "layer", layer, RECIPES["int8w"], seen, None)
    spec = QuantSpec("int8w", {"layer": quantized}, {f"layer.{key}": value for key, value in tensors.items()})
    graph = GraphSpec("g", One(spec.module("layer")).eval(), {"x": x}, ("y",))
    write_graph(graph, folder, {}, quantized=spec)
    return spec, graph, folder / "g.onnx"


def _run(path: Path, x: np.ndarray, folder: Path) -> tuple[np.ndarray, list[str]]:
    """What it gives, and the operators that ONNX Runtime is left with."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(folder / "optimised.onnx").graph
    return session.run(None, {"x": x})[0], [node.op_type for node in graph.node]


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_is_dequantized_at_a_run(tmp_path, name):
    spec, graph, path = _written(tmp_path, name)
    x = np.random.default_rng(0).normal(size=(1, 6, 5, 7)).astype(np.float32)
    found, kinds = _run(path, x, tmp_path)
    assert not {"DequantizeLinear", "Cast", "Mul", "MatMulNBits"} & set(kinds)
    np.testing.assert_allclose(found, graph.run({"x": x})["y"], rtol=0, atol=1e-6)
    assert check_integers(spec, {"g": path}) == 1
    files = convert_graphs({"g": path}, tmp_path, precision="int8w")
    assert check_openvino(spec, {"g": tmp_path / files["g"]}) == 1


def test_a_large_linear_weight_stays_in_integers(tmp_path, monkeypatch):
    monkeypatch.setattr(quantized_nodes, "_SMALL", 41)
    spec, _, path = _written(tmp_path, "linear")
    _, kinds = _run(path, np.zeros((1, 6, 5, 7), np.float32), tmp_path)
    assert "MatMulNBits" in kinds
    assert check_integers(spec, {"g": path}) == 1


@pytest.mark.parametrize("name", ["depthwise", "linear"])
def test_a_changed_scale_behind_a_cast_is_found(tmp_path, name):
    spec, _, path = _written(tmp_path, name)
    spec.tensors["layer.weight_scale"][2] *= 2
    with pytest.raises(ExportError, match=r"g.onnx: the scales of layer differ"):
        check_integers(spec, {"g": path})
