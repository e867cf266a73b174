from __future__ import annotations

import copy

import numpy as np
import pytest

from sam3i_edge.errors import ExportError

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from sam3i_edge.export.litert.flatbuffer import Graph
from sam3i_edge.runtimes import litert, open_runtime

CODES = {
    name: getattr(schema.BuiltinOperator, name) for name in ("QUANTIZE", "DEQUANTIZE", "TRANSPOSE", "ADD")
}
RNG = np.random.default_rng(3)
INTEGERS = RNG.integers(-127, 128, (16, 24)).astype(np.int8)
SCALE = np.array([2.0 ** -(n % 7) * 0.01171875 for n in range(16)], np.float32)
WEIGHT = INTEGERS * SCALE[:, None]


def write(path, *, transposed=True):
    """y = x + W, or its transposition, with W as the converter leaves a quantized weight."""
    buffers = [schema.BufferT()]

    def tensor(name, shape, kind, data=None, quantization=None):
        if data is not None:
            buffers.append(schema.BufferT(data=np.frombuffer(data.tobytes(), np.uint8)))
        return schema.TensorT(
            shape=list(shape), type=kind, buffer=0 if data is None else len(buffers) - 1,
            name=name.encode(), quantization=quantization,
        )  # fmt: skip

    described = schema.QuantizationParametersT(
        scale=SCALE, zeroPoint=np.zeros(16, np.int64), quantizedDimension=0
    )
    kinds, out = schema.TensorType, WEIGHT.T.shape if transposed else WEIGHT.shape
    tensors = [
        tensor("x", out, kinds.FLOAT32),
        tensor("w", WEIGHT.shape, kinds.FLOAT32, WEIGHT),
        tensor("q", WEIGHT.shape, kinds.INT8, quantization=described),
        tensor("f", WEIGHT.shape, kinds.FLOAT32),
        tensor("order", (2,), kinds.INT32, np.array([1, 0], np.int32)),
        tensor("t", out, kinds.FLOAT32),
        tensor("y", out, kinds.FLOAT32),
    ]
    names = list(CODES)

    def operator(kind, inputs, outputs):
        return schema.OperatorT(opcodeIndex=names.index(kind), inputs=inputs, outputs=outputs)

    operators = [operator("QUANTIZE", [1], [2]), operator("DEQUANTIZE", [2], [3])]
    if transposed:
        operators.append(operator("TRANSPOSE", [3, 4], [5]))
    operators.append(operator("ADD", [0, 5 if transposed else 3], [6]))
    operators[-1].builtinOptionsType = schema.BuiltinOptions.AddOptions
    operators[-1].builtinOptions = schema.AddOptionsT()
    model = schema.ModelT(
        version=3,
        operatorCodes=[
            schema.OperatorCodeT(deprecatedBuiltinCode=c, builtinCode=c, version=2) for c in CODES.values()
        ],
        subgraphs=[schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[6], operators=operators)],
        buffers=buffers,
        signatureDefs=[
            schema.SignatureDefT(
                inputs=[schema.TensorMapT(name="x", tensorIndex=0)],
                outputs=[schema.TensorMapT(name="y", tensorIndex=6)],
                signatureKey="serving_default",
            )
        ],
    )
    path.write_bytes(litert._packed(model))
    return path


def answer(path, x):
    return open_runtime("litert", path, "cpu", threads=1).run({"x": x})["y"]


@pytest.mark.parametrize("transposed", [False, True])
def test_weights_become_integers_that_compute_the_same(tmp_path, transposed):
    path = write(tmp_path / "w.tflite", transposed=transposed)
    size = path.stat().st_size
    assert not list(Graph(path).integer_weights())
    graph = Graph(path)
    graph.fold_weights()
    graph.save()
    (found,) = Graph(path).integer_weights()
    assert found.axis == int(transposed)
    np.testing.assert_array_equal(found.integers, INTEGERS.T if transposed else INTEGERS)
    np.testing.assert_array_equal(found.scale, SCALE)
    assert {Graph(path)._kind(operator) for operator in Graph(path)._graph.operators} == {"DEQUANTIZE", "ADD"}
    x = RNG.normal(size=WEIGHT.T.shape if transposed else WEIGHT.shape).astype(np.float32)
    np.testing.assert_array_equal(answer(path, x), x + (WEIGHT.T if transposed else WEIGHT))
    assert path.stat().st_size < size - 2 * WEIGHT.size


def test_a_weight_that_two_read_stays(tmp_path):
    """A layer that is applied twice: its constant is rounded twice, and one of these is transposed."""
    path = write(tmp_path / "w.tflite")
    graph = Graph(path)
    tensors, operators = graph._graph.tensors, graph._graph.operators
    quantize, dequantize = (copy.deepcopy(operators[n]) for n in (0, 1))
    tensors += [copy.deepcopy(tensors[n]) for n in (2, 3)]
    tensors.append(schema.TensorT(shape=[16, 24], type=schema.TensorType.FLOAT32, buffer=0, name=b"z"))
    quantize.outputs, dequantize.inputs, dequantize.outputs = [7], [7], [8]
    add = copy.deepcopy(operators[-1])
    add.inputs, add.outputs = [8, 3], [9]
    operators += [quantize, dequantize, add]
    graph._graph.outputs = [6, 9]
    graph._model.signatureDefs[0].outputs.append(schema.TensorMapT(name="z", tensorIndex=9))
    graph.fold_weights()
    graph.save()
    x = np.zeros(WEIGHT.T.shape, np.float32)
    found = open_runtime("litert", path, "cpu", threads=1).run({"x": x})
    np.testing.assert_array_equal(found["y"], WEIGHT.T)
    np.testing.assert_array_equal(found["z"], 2 * WEIGHT)


def test_large_floats_are_kept_in_float16(tmp_path):
    path = write(tmp_path / "w.tflite")
    graph = Graph(path)
    graph._graph.operators[:2] = []  # the transposition reads the float constant itself
    graph._graph.operators[0].inputs[0] = 1
    graph.halve()
    graph.save()
    x = np.zeros(WEIGHT.T.shape, np.float32)
    np.testing.assert_array_equal(answer(path, x), WEIGHT.T.astype(np.float16).astype(np.float32))
    assert path.stat().st_size < 2 * WEIGHT.nbytes


def test_a_file_of_two_graphs_is_refused(tmp_path):
    path = write(tmp_path / "w.tflite")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    model.subgraphs.append(model.subgraphs[0])
    path.write_bytes(litert._packed(model))
    with pytest.raises(ExportError, match=r"w.tflite has 2 graphs"):
        Graph(path)
