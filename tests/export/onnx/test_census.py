from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam3i_edge.export.onnx.census import Census, census, linear_work

RNG = np.random.default_rng(0)


def model(nodes, inputs, outputs, weights, opset=20) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, ir_version=10, opset_imports=imports)
    return onnx.shape_inference.infer_shapes(made)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def work(made) -> dict[str, int]:
    return linear_work(ir.from_proto(made))


def test_multiply_adds_by_hand():
    make = helper.make_node
    made = model(
        [
            make("Conv", ["x", "conv"], ["a"], kernel_shape=[3, 3], pads=[1] * 4, group=2),  # [1, 6, 8, 8]
            make("ConvTranspose", ["a", "up"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),  # [1, 5, 16, 16]
            make("Reshape", ["b", "shape"], ["c"]),  # [1, 5, 256]
            make("Transpose", ["linear"], ["turned"], perm=[1, 0]),
            make("MatMul", ["c", "turned"], ["d"]),  # [1, 5, 7]
            make("Transpose", ["d"], ["e"], perm=[0, 2, 1]),
            make("MatMul", ["d", "e"], ["out"]),  # attention: no weight
        ],
        [("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [("out", [1, 5, 5])],
        {
            "conv": normal(6, 2, 3, 3),
            "up": normal(6, 5, 2, 2),
            "linear": normal(7, 256),
            "shape": np.array([1, 5, 256]),
        },
    )
    assert work(made) == {
        "conv": 6 * 8 * 8 * 2 * 9,
        "up": 6 * 8 * 8 * 5 * 4,
        "linear": 5 * 256 * 7,
    }


def test_weights_chosen_by_level_count_and_products_of_inputs_do_not():
    make = helper.make_node
    made = model(
        [
            make("Gather", ["table", "level"], ["chosen"], axis=0),  # [1, 8, 4]
            make("MatMul", ["x", "chosen"], ["a"]),
            make("Gather", ["table", "which"], ["other"], axis=0),
            make("MatMul", ["x", "other"], ["b"]),
            make("Add", ["a", "b"], ["out"]),
        ],
        [
            ("x", TensorProto.FLOAT, [1, 3, 8]),
            ("level", TensorProto.INT64, [1]),
            ("which", TensorProto.INT64, [1]),
        ],
        [("out", [1, 3, 4])],
        {"table": normal(3, 8, 4)},
    )
    assert work(made) == {"table": 3 * 8 * 4}


def test_a_weight_that_is_read_twice_counts_twice():
    make = helper.make_node
    made = model(
        [make("MatMul", ["x", "w"], ["a"]), make("MatMul", ["a", "w"], ["out"])],
        [("x", TensorProto.FLOAT, [2, 4])],
        [("out", [2, 4])],
        {"w": normal(4, 4)},
    )
    assert work(made) == {"w": 2 * 2 * 4 * 4}


def test_shapes_must_be_static():
    made = model(
        [helper.make_node("MatMul", ["x", "w"], ["out"])],
        [("x", TensorProto.FLOAT, ["n", 4])],
        [("out", ["n", 4])],
        {"w": normal(4, 4)},
    )
    with pytest.raises(ValueError, match="has no static shape"):
        work(made)


def half_quantized(rows=4):
    """Two linear layers of one size, the first of them in integers."""
    make = helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "s", "z"], ["q"]),
        make("DequantizeLinear", ["q", "s", "z"], ["dq"]),
        make("DequantizeLinear", ["w", "ws"], ["dw"], axis=1),
        make("MatMul", ["dq", "dw"], ["a"]),
        make("MatMul", ["a", "f"], ["out"]),
    ]
    weights = {
        "s": np.array(0.1, np.float32),
        "z": np.array(128, np.uint8),
        "w": RNG.integers(-127, 128, (16, 16)).astype(np.int8),
        "ws": np.full(16, 0.01, np.float32),
        "f": normal(16, 16),
    }
    shape = [rows, 16]
    return model(nodes, [("x", TensorProto.FLOAT, shape)], [("out", shape)], weights)


def test_the_share_is_read_from_what_onnx_runtime_made(tmp_path):
    onnx.save(half_quantized(), tmp_path / "graph.onnx")
    counted = census(tmp_path / "graph.onnx")
    assert (counted.integer, counted.total) == (4 * 16 * 16, 2 * 4 * 16 * 16)
    assert counted.share == 0.5
    assert sum(counted.kernels.values()) == 1
    assert set(counted.kernels) <= {"QGemm", "MatMulIntegerToFloat", "QLinearMatMul"}
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]  # nothing is left behind


def test_a_float_graph_has_none(tmp_path):
    made = model(
        [helper.make_node("MatMul", ["x", "w"], ["out"])],
        [("x", TensorProto.FLOAT, [2, 4])],
        [("out", [2, 4])],
        {"w": normal(4, 4)},
    )
    onnx.save(made, tmp_path / "graph.onnx")
    assert census(tmp_path / "graph.onnx") == Census(0, 32, {})


def test_an_integer_weight_that_runs_in_float_does_not_count(tmp_path):
    """Weights alone in int8: ONNX Runtime dequantizes and multiplies in float."""
    made = model(
        [
            helper.make_node("DequantizeLinear", ["w", "ws"], ["dw"], axis=1),
            helper.make_node("MatMul", ["x", "dw"], ["out"]),
        ],
        [("x", TensorProto.FLOAT, [2, 16])],
        [("out", [2, 16])],
        {"w": RNG.integers(-127, 128, (16, 16)).astype(np.int8), "ws": np.full(16, 0.01, np.float32)},
    )
    onnx.save(made, tmp_path / "graph.onnx")
    counted = census(tmp_path / "graph.onnx")
    assert (counted.integer, counted.total) == (0, 2 * 16 * 16)


def test_sums_of_graphs():
    total = Census(3, 4, {"QGemm": 1}) + Census(0, 4, {"QGemm": 2, "QLinearConv": 1})
    assert total == Census(3, 8, {"QGemm": 3, "QLinearConv": 1})
    assert total.share == 3 / 8
    assert Census(0, 0, {}).share == 0
