from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam3i_edge.export.isolated import call
from sam3i_edge.measure.plan import plan
from sam3i_edge.measure.runner import started
from sam3i_edge.measure.statistics import latency
from studies.limits import measure_rates
from studies.roofline import graph_work, roofline


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """x [4, 8] times a weight [8, 6], then the product times its own transpose: [4, 4]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Transpose", ["y"], ["z"], perm=[1, 0]),
        helper.make_node("MatMul", ["y", "z"], ["out"]),
    ]
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [4, 8])], [value("out", TensorProto.FLOAT, [4, 4])],
        [numpy_helper.from_array(np.ones((8, 6), np.float32), "w")],
        value_info=[value("y", TensorProto.FLOAT, [4, 6]), value("z", TensorProto.FLOAT, [6, 4])],
    )  # fmt: skip
    onnx.save(
        helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]),
        tmp_path / "g.onnx",
    )
    return tmp_path / "g.onnx"


def test_operations_and_bytes_are_counted_exactly(graph: Path) -> None:
    with_weights, attention, integer, size = graph_work(graph)
    assert with_weights == 2 * 4 * 6 * 8
    assert attention == 2 * 4 * 4 * 6
    assert integer == 0
    assert size == 4 * (8 * 6 + 4 * 8 + 4 * 4)


def test_rates_are_measured() -> None:
    # In a process of its own: it binds the one that it runs in to some cores.
    (rates, left_out), _ = call(measure_rates, 1, (64, 64, 64), 1 << 20)
    assert left_out == []
    assert {rate.name for rate in rates} == {"memory", "float32", "bfloat16", "int8"}
    assert all(rate.value > 0 for rate in rates)


def test_each_graph_stands_beside_the_machine(tiny_bundle: Any) -> None:
    here = plan([tiny_bundle], device="cpu")
    taken = {"encode_image": latency([2.0, 2.0]), "encode_text": latency([1.0])}
    row = started(here.rows[0], "simple").model_copy(update={"latency": taken})
    found = roofline(here.rows, [row], 1)
    graphs = {one.graph: one for one in found.graphs}
    assert set(graphs) == set(tiny_bundle.manifest.variants["onnx-fp32"].graphs) - {"detector"}
    assert any("detector: flat_masks has no static shape" in why for why in found.left_out)
    assert graphs["image_encoder"].achieved_ms == 2
    assert graphs["text_encoder.simple"].achieved_ms == 1
    assert graphs["text_encoder.concept"].achieved_ms is None  # the row is of another level
    assert graphs["image_encoder"].operations == 2 * (8 * 8 * 8) * (3 * 4 * 4)
    memory = next(rate.value for rate in found.rates if rate.name == "memory")
    for one in found.graphs:
        assert one.possible_ms >= one.bytes / memory / 1e6 * 0.999
