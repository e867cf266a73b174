from __future__ import annotations

import numpy as np
import pytest

from sam3i_edge import runtimes
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from sam3i_edge.runtimes import litert


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "add.tflite"
    path.write_bytes(litert._add_graph())
    return path


def test_a_graph_runs_by_the_names_of_its_signature(path):
    runtime = runtimes.open_runtime("litert", path, "cpu", threads=1)
    out = runtime.run({"x": np.full(1, 3, np.float32)})
    np.testing.assert_array_equal(out["y"], np.full(1, 6, np.float32))
    runtimes.probe("litert", "cpu")


def test_outputs_are_not_overwritten_by_the_next_run(path):
    runtime = runtimes.open_runtime("litert", path, "cpu", threads=1)
    first = runtime.run({"x": np.ones(1, np.float32)})["y"]
    runtime.run({"x": np.zeros(1, np.float32)})
    assert first.tolist() == [2.0]


def test_int64_goes_in_as_int32(tmp_path):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(litert._add_graph(), 0))
    for tensor in model.subgraphs[0].tensors:
        tensor.type = schema.TensorType.INT32
    path = tmp_path / "add.tflite"
    path.write_bytes(litert._packed(model))
    runtime = runtimes.open_runtime("litert", path, "cpu", threads=1)
    assert runtime.run({"x": np.array([2**31 - 1 - 7], np.int64)})["y"].dtype == np.int32
    assert runtime.run({"x": np.array([20], np.int32)})["y"].tolist() == [40]
    with pytest.raises(
        ValueError, match=r"add.tflite: input 'x' is int64 \[1\] with 2147483648, which int32"
    ):
        runtime.run({"x": np.array([2**31], np.int64)})


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "add.tflite wants the inputs x, got none"),
        ({"z": np.ones(1, np.float32)}, "wants the inputs x, got z"),
        ({"x": np.ones(2, np.float32)}, r"input 'x' is float32 \[2\], want float32 \[1\]"),
        ({"x": np.ones(1, np.float64)}, r"input 'x' is float64 \[1\], want float32 \[1\]"),
    ],
)
def test_wrong_inputs_are_told(path, inputs, words):
    with pytest.raises(ValueError, match=words):
        runtimes.open_runtime("litert", path, "cpu", threads=1).run(inputs)


def test_a_closed_runtime_says_so(path):
    runtime = runtimes.open_runtime("litert", path, "cpu", threads=1)
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeUnavailable, match="was closed"):
        runtime.run({"x": np.ones(1, np.float32)})


def test_what_is_no_graph_and_other_devices_are_refused(path, tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        runtimes.open_runtime("litert", tmp_path / "none.tflite", "cpu")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArtifactError, match="LiteRT cannot open"):
        runtimes.open_runtime("litert", damaged, "cpu")
    with pytest.raises(RuntimeUnavailable, match="LiteRT runs on cpu here, not on 'cuda'"):
        runtimes.open_runtime("litert", path, "cuda")
