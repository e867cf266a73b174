import logging
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from sam3i_edge.devices import machine
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.runtimes import open_runtime, ort, probe


def test_runs_with_the_data_file_beside_it(runtime, text_encoder):
    table = onnx.numpy_helper.to_array(onnx.load(text_encoder).graph.initializer[0])
    ids = np.arange(32, dtype=np.int64)[None]
    outputs = runtime.run({"input_ids": ids})
    assert list(outputs) == ["text_features"]
    np.testing.assert_array_equal(outputs["text_features"], table[ids])


def test_data_file_is_found_from_any_folder(text_encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = onnx.numpy_helper.to_array(onnx.load(text_encoder).graph.initializer[0])
    got = open_runtime("onnxruntime", text_encoder, "cpu").run({"input_ids": np.zeros((1, 32), np.int64)})
    np.testing.assert_array_equal(got["text_features"], table[np.zeros((1, 32), np.int64)])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "wants the inputs input_ids, got none"),
        ({"ids": np.zeros((1, 32), np.int64)}, "wants the inputs input_ids, got ids"),
        ({"input_ids": np.zeros((1, 32), np.int32)}, r"is int32 \[1, 32\], want int64 \[1, 32\]"),
        ({"input_ids": np.zeros((1, 31), np.int64)}, r"is int64 \[1, 31\], want int64 \[1, 32\]"),
        ({"input_ids": np.zeros(32, np.int64)}, r"is int64 \[32\], want int64 \[1, 32\]"),
    ],
)
def test_wrong_inputs(runtime, inputs, message):
    with pytest.raises(ValueError, match=message):
        runtime.run(inputs)


def test_failure_while_running_is_reported(runtime):
    with pytest.raises(
        RuntimeUnavailable, match=r"text_encoder\.simple\.onnx failed in onnxruntime: .*indices"
    ):
        runtime.run({"input_ids": np.full((1, 32), 999, np.int64)})


def test_closed_runtime_refuses(runtime):
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeUnavailable, match="was closed"):
        runtime.run({"input_ids": np.zeros((1, 32), np.int64)})


def test_missing_graph(tmp_path):
    with pytest.raises(ArtifactError, match=r"no\.onnx does not exist"):
        open_runtime("onnxruntime", tmp_path / "no.onnx", "cpu")


def test_damaged_graph(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactError, match=r"onnxruntime cannot open .*bad\.onnx"):
        open_runtime("onnxruntime", tmp_path / "bad.onnx", "cpu")


@pytest.mark.parametrize("name", [b"input_ids", b"text_features", b"Gather"])
def test_a_graph_with_names_that_are_no_text(text_encoder, tmp_path, name):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(text_encoder.read_bytes().replace(name, b"\x96" * len(name)))
    (tmp_path / "text_encoder.simple.data").write_bytes(text_encoder.with_suffix(".data").read_bytes())
    with pytest.raises(ArtifactError, match=r"onnxruntime cannot open .*bad\.onnx"):
        open_runtime("onnxruntime", bad, "cpu")


def test_unknown_device(text_encoder):
    with pytest.raises(RuntimeUnavailable, match="runs on cpu, cuda, jetson, not on 'apple'"):
        open_runtime("onnxruntime", text_encoder, "apple")


def test_threads_are_passed_on(text_encoder):
    assert ort._session(str(text_encoder), "cpu", 3).get_session_options().intra_op_num_threads == 3
    usable = ort._session(str(text_encoder), "cpu", None).get_session_options().intra_op_num_threads
    assert usable == machine.usable_cores()


def test_what_a_step_has_used_goes_back(runtime):
    assert not runtime._session.get_session_options().enable_cpu_mem_arena


def test_low_memory_changes_how_and_not_what(text_encoder, runtime):
    small = open_runtime("onnxruntime", text_encoder, "cpu", threads=1, low_memory=True)
    options = small._session.get_session_options()
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    ids = {"input_ids": np.arange(32, dtype=np.int64)[None]}
    np.testing.assert_array_equal(*(r.run(ids)["text_features"] for r in (small, runtime)))


def test_float_activations_stay_float_in_front_of_int8_weights(tmp_path):
    rng = np.random.default_rng(0)
    integers, scale = rng.integers(-127, 128, (64, 96), np.int8), rng.uniform(0.001, 0.004, 96).astype("f")
    tensors = [onnx.numpy_helper.from_array(v, n) for n, v in (("w", integers), ("s", scale))]
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["w", "s"], ["wd"], axis=1),
        onnx.helper.make_node("MatMul", ["x", "wd"], ["y"]),
    ]
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [8, width])
        for name, width in (("x", 64), ("y", 96))
    )
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], tensors)
    opset = onnx.helper.make_opsetid("", 20)
    path = tmp_path / "graph.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    given = rng.standard_normal((8, 64)).astype(np.float32)
    got = open_runtime("onnxruntime", path, "cpu", threads=1).run({"x": given})["y"]
    np.testing.assert_allclose(got, given @ (integers * scale), atol=1e-5)


def test_threads_wait_by_spinning_for_a_moment_at_most(text_encoder):
    options = ort._session(str(text_encoder), "cpu", 2).get_session_options()
    wanted = ort._waiting(onnxruntime.__version__)
    assert {name: options.get_session_config_entry(name) for name in wanted} == wanted


def test_versions_that_cannot_spin_for_a_moment_do_not_spin():
    allowed = {
        version: ort._waiting(version)["session.intra_op.allow_spinning"] for version in ("1.25.1", "1.26.0")
    }
    assert allowed == {"1.25.1": "0", "1.26.0": "1"}


def test_probe_graph_is_a_valid_model():
    onnx.checker.check_model(onnx.load_from_string(ort._add_graph()), full_check=True)


def test_probe_runs_the_graph(monkeypatch):
    ran = []
    real = ort._session

    def session(*arguments):
        ran.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(ort, "_session", session)
    ort.probe.cache_clear()
    probe("onnxruntime", "cpu")
    assert ran == [(ort._add_graph(), "cpu", 1)]


def test_probe_reports_a_runtime_that_does_not_run(monkeypatch):
    ort.probe.cache_clear()
    monkeypatch.setattr(ort, "_add_graph", lambda: b"broken")
    with pytest.raises(RuntimeUnavailable, match="is installed but does not run on cpu"):
        probe("onnxruntime", "cpu")
    ort.probe.cache_clear()


def test_probe_reports_wrong_sums(monkeypatch):
    ort.probe.cache_clear()
    good = ort._add_graph()
    monkeypatch.setattr(ort, "_add_graph", lambda: good.replace(b"\x22\x03Add", b"\x22\x03Sub"))
    with pytest.raises(RuntimeUnavailable, match=r"computes 1 \+ 1 = 0.0 on cpu"):
        probe("onnxruntime", "cpu")
    ort.probe.cache_clear()


def test_nothing_is_printed(text_encoder, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        open_runtime("onnxruntime", text_encoder, "cpu").run({"input_ids": np.zeros((1, 32), np.int64)})
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_the_tiny_graph_is_valid_and_says_what_it_computes():
    from sam3i_edge.runtimes.tiny_graph import tiny_graph, tiny_input, tiny_output

    onnx.checker.check_model(onnx.load_from_string(tiny_graph()), full_check=True)
    (got,) = onnxruntime.InferenceSession(tiny_graph()).run(["y"], {"x": tiny_input()})
    np.testing.assert_allclose(got, tiny_output(), atol=1e-6)


FORKED = """
import os, sys
import numpy as np
from pathlib import Path
from sam3i_edge.runtimes import open_runtime
runtime = open_runtime('onnxruntime', Path(sys.argv[1]), 'cpu', threads=2)
ids = {'input_ids': np.arange(32)[None]}
before = runtime.run(ids)['text_features']
child = os.fork()
if not child:
    os._exit(7 if np.array_equal(before, runtime.run(ids)['text_features']) else 8)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_runs_what_its_parent_opened(text_encoder):
    ran = [sys.executable, "-c", FORKED, text_encoder]
    assert subprocess.check_output(ran, text=True, timeout=60) == "7\n"
