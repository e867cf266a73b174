"""Transposed convolutions in integers: written as pointwise ones, with the integers of the spec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from sam3i_edge.errors import ExportError
from sam3i_edge.export.onnx.census import census
from sam3i_edge.export.onnx.deconvolutions import is_pointwise, stored
from sam3i_edge.export.onnx.graph_file import write_graph
from sam3i_edge.export.onnx.onnx_variant import check_integers
from sam3i_edge.export.openvino.integers import check_integers as check_openvino
from sam3i_edge.export.openvino.ir import convert_graphs
from sam3i_edge.model.graph_specs import GraphSpec
from sam3i_edge.quantize.calibration import Seen
from sam3i_edge.quantize.ptq import quantize_module
from sam3i_edge.quantize.recipes import RECIPES, Recipe
from sam3i_edge.quantize.spec import QuantSpec


class Deconvolution(nn.Module):
    """One layer between an input and an activation."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self.up = up

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(self.up(x))


def _quantized(up: nn.ConvTranspose2d, recipe: Recipe = RECIPES["int8"]) -> tuple[QuantSpec, GraphSpec]:
    x = torch.randn(1, up.in_channels, 5, 7)
    with torch.no_grad():
        seen = [Seen.of(values.shape[1]) for values in (x, up(x))]
        for one, values in zip(seen, (x, up(x)), strict=True):
            one.add(values.movedim(1, -1).reshape(-1, values.shape[1]))
        layer, tensors = quantize_module("conv_transpose2d", "up", up, recipe, *seen)
    spec = QuantSpec(recipe.name, {"up": layer}, {f"up.{name}": value for name, value in tensors.items()})
    module = Deconvolution(spec.module("up")).eval()
    return spec, GraphSpec("g", module, {"x": torch.zeros_like(x)}, ("y",))


@pytest.mark.parametrize(("bias", "side"), [(True, 2), (False, 2), (True, 4)])
def test_an_upsampling_layer_runs_in_integers_and_gives_the_same(tmp_path, bias, side):
    torch.manual_seed(1)
    spec, graph = _quantized(nn.ConvTranspose2d(6, 5, side, stride=side, bias=bias))
    x = np.random.default_rng(0).normal(size=(1, 6, 5, 7)).astype(np.float32)
    want = graph.run({"x": x})["y"]
    write_graph(graph, tmp_path, {}, quantized=spec)
    path = tmp_path / "g.onnx"
    kinds = {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}
    assert {"Conv", "DepthToSpace"} <= kinds
    assert "ConvTranspose" not in kinds
    assert census(path).share == 1.0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], want, rtol=0, atol=1e-6)
    assert check_integers(spec, {"g": path}) == 1
    files = convert_graphs({"g": path}, tmp_path, precision="int8")
    assert check_openvino(spec, {"g": tmp_path / files["g"]}) == 1


def test_the_order_of_a_file_is_tile_by_tile():
    spec, _ = _quantized(nn.ConvTranspose2d(6, 5, 2, stride=2))
    integers, scale = stored(spec, "up")
    assert integers.shape == (20, 6, 1, 1)
    weight = spec.tensors["up.weight"].numpy()
    for channel, row, column in ((0, 0, 1), (3, 1, 0), (4, 1, 1)):
        place = 4 * channel + 2 * row + column
        np.testing.assert_array_equal(integers[place, :, 0, 0], weight[:, channel, row, column])
        assert scale[place] == spec.tensors["up.weight_scale"][channel]


def test_another_integer_in_the_spec_is_found(tmp_path):
    spec, graph = _quantized(nn.ConvTranspose2d(6, 5, 2, stride=2))
    write_graph(graph, tmp_path, {}, quantized=spec)
    files = convert_graphs({"g": tmp_path / "g.onnx"}, tmp_path, precision="int8")
    weight = spec.tensors["up.weight"].clone()
    weight[3, 2, 1, 0] = -weight[3, 2, 1, 0] or 1
    scale = spec.tensors["up.weight_scale"].clone()
    scale[2] *= 2
    for changed, message in (
        ({"up.weight": weight}, "1 integers of up"),
        ({"up.weight_scale": scale}, "scales"),
    ):
        other = replace(spec, tensors={**spec.tensors, **changed})
        with pytest.raises(ExportError, match=message):
            check_integers(other, {"g": tmp_path / "g.onnx"})
        with pytest.raises(ExportError, match=message):
            check_openvino(other, {"g": Path(tmp_path / files["g"])})


def test_layers_that_overlap_or_have_float_activations_stay_as_they_are():
    for up, recipe in (
        (nn.ConvTranspose2d(6, 5, 3, stride=2), "int8"),
        (nn.ConvTranspose2d(6, 5, 2, stride=2, padding=1), "int8"),
        (nn.ConvTranspose2d(6, 5, 2, stride=2), "int8w"),
    ):
        spec, _ = _quantized(up, RECIPES[recipe])
        assert not is_pointwise(spec.layers["up"], spec.tensors["up.weight"])
        assert np.array_equal(stored(spec, "up")[0], spec.tensors["up.weight"].numpy())


class Sisters(nn.Module):
    """Layers of one input whose scales are equal: the exporter writes equal constants once."""

    def __init__(self, spec: QuantSpec) -> None:
        super().__init__()
        self.down, self.up = spec.module("down"), spec.module("up")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return nn.functional.gelu(self.down(x)), nn.functional.gelu(self.up(x))


def test_layers_of_equal_scales_keep_theirs(tmp_path):
    torch.manual_seed(2)
    spec, graph = _quantized(nn.ConvTranspose2d(6, 5, 2, stride=2))
    weight = torch.randint(-127, 128, (5, 6, 1, 1), dtype=torch.int8)
    down = spec.layers["up"].model_copy(update={"kind": "conv2d", "options": {"stride": [1, 1]}})
    tensors = {f"down.{part}": spec.tensors[f"up.{part}"] for part in ("weight_scale", "bias")}
    spec = QuantSpec(
        "int8", {"down": down, **spec.layers}, {**spec.tensors, **tensors, "down.weight": weight}
    )
    graph = GraphSpec("g", Sisters(spec).eval(), graph.inputs, ("down", "up"))
    write_graph(graph, tmp_path, {}, quantized=spec)
    assert check_integers(spec, {"g": tmp_path / "g.onnx"}) == 2
    x = np.random.default_rng(0).normal(size=(1, 6, 5, 7)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    for got, want in zip(session.run(None, {"x": x}), graph.run({"x": x}).values(), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
