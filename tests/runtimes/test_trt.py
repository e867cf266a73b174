"""Everything up to TensorRT's own calls, with stand-ins for the package and for CUDA: not run on hardware."""

import importlib
import logging
import sys

import numpy as np
import pytest

from sam3i_edge import runtimes
from sam3i_edge.devices import nvidia
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.runtimes import engine_cache


@pytest.fixture
def cudart(fakes, monkeypatch, tmp_path):
    cudart = fakes.Cudart()
    monkeypatch.setattr(nvidia, "_library", fakes.libraries(cudart))
    monkeypatch.setattr(engine_cache, "cache_folder", lambda: tmp_path / "cache")
    return cudart


@pytest.fixture
def tensorrt(fakes, monkeypatch, cudart):
    module = fakes.TensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.delitem(sys.modules, "sam3i_edge.runtimes.trt", raising=False)
    yield module
    sys.modules.pop("sam3i_edge.runtimes.trt", None)


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "bundle" / "detector.onnx"
    path.parent.mkdir()
    path.write_bytes(b"a graph with its weights in detector.data")
    (path.parent / "detector.data").write_bytes(b"weights")
    return path


def folders(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


def test_without_the_package_it_is_unavailable_and_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.delitem(sys.modules, "sam3i_edge.runtimes.trt", raising=False)
    with pytest.raises(RuntimeUnavailable, match=r"'tensorrt' cannot be imported .*: pip install tensorrt"):
        runtimes.probe("tensorrt", "jetson")


def test_builds_once_keeps_the_engine_and_runs_it(tensorrt, cudart, graph, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        runtime = runtimes.open_runtime("tensorrt", graph, "jetson", precision="fp32")
    assert "building the engine of detector for this device; this can take 10 minutes" in caplog.text
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for factor in (1, 5):
        np.testing.assert_array_equal(runtime.run({"x": factor * x})["y"], 2 * factor * x + 1)
    assert cudart.calls.count("cudaMalloc") == 2, "the buffers are made once"
    assert len(cudart.live) == 2
    runtime.close()
    runtime.close()
    assert cudart.live == {}
    assert cudart.calls.count("cudaStreamDestroy") == 1
    with pytest.raises(RuntimeUnavailable, match="was closed"):
        runtime.run({"x": x})
    (folder,) = folders(tmp_path)
    assert folder.startswith("detector-")
    caplog.clear()
    runtimes.open_runtime("tensorrt", graph, "jetson", precision="fp32")
    assert tensorrt.record["builds"] == 1
    assert caplog.text == ""


def test_an_array_that_is_not_contiguous_arrives_whole(tensorrt, graph):
    runtime = runtimes.open_runtime("tensorrt", graph, "jetson", precision="fp32")
    x = np.arange(12, dtype=np.float32).reshape(3, 4).T[:2, ::1]
    np.testing.assert_array_equal(runtime.run({"x": x})["y"], 2 * x + 1)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "wants the inputs x, got none"),
        ({"z": np.zeros((2, 3), np.float32)}, "wants the inputs x, got z"),
        ({"x": np.zeros((2, 3))}, r"'x' is float64 \[2, 3\], want float32 \[2, 3\]"),
        ({"x": np.zeros((3, 2), np.float32)}, r"'x' is float32 \[3, 2\], want float32 \[2, 3\]"),
    ],
)
def test_wrong_inputs(tensorrt, graph, inputs, message):
    runtime = runtimes.open_runtime("tensorrt", graph, "jetson", precision="fp32")
    with pytest.raises(ValueError, match=message):
        runtime.run(inputs)


def test_fp16_keeps_softmax_and_norms_in_float32(tensorrt, graph):
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp16")
    assert tensorrt.record["flags"] == ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
    assert tensorrt.record["networks"] == [2, 0], "read strictly to look, then freely to lower"
    assert tensorrt.record["float32"] == [
        ("softmax", "float", "float"),
        ("norm", "float", "float"),
        ("reduce", "float", "float"),
    ], "the integer sum is left alone"


def test_a_graph_in_float16_keeps_its_own_types(tensorrt, graph):
    tensorrt.half = True
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp16")
    assert tensorrt.record["flags"] == []
    assert tensorrt.record["networks"] == [2]


def test_fp32_is_strictly_typed(tensorrt, graph):
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    assert (tensorrt.record["flags"], tensorrt.record["networks"]) == ([], [2])


def test_a_tensorrt_that_cannot_lower_asks_for_a_graph_in_fp16(fakes, tensorrt, graph, monkeypatch):
    del tensorrt.BuilderFlag.FP16
    with pytest.raises(RuntimeUnavailable, match=r"from a graph in fp16 only.*export"):
        runtimes.prepare("tensorrt", graph, "jetson", precision="fp16")


def test_progress_warns_first_and_reports_the_outermost_phase(tensorrt, graph, caplog):
    seen = []
    runtimes.prepare(
        "tensorrt",
        graph,
        "jetson",
        precision="fp32",
        progress=lambda words, share: seen.append((words, share)),
    )
    assert "can take 10 minutes" in seen[0][0]
    assert [share for _, share in seen] == [0.0, 0.5, 1.0, 1.0]
    assert "Building Engine" in seen[1][0]
    assert caplog.text == "", "said once, to whoever asked"


def test_timings_of_one_graph_shorten_the_next(tensorrt, graph):
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp16")
    assert tensorrt.record["timing"] == [b"", b"timings "]


@pytest.mark.parametrize(
    "change",
    ["precision", "model", "weights", "tensorrt", "capability", "jetpack"],
)
def test_an_engine_is_used_only_where_all_it_depends_on_is_the_same(
    fakes, tensorrt, graph, tmp_path, monkeypatch, change
):
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    precision = "fp32"
    if change == "precision":
        precision = "fp16"
    elif change == "model":
        graph.write_bytes(graph.read_bytes() + b"!")
    elif change == "weights":
        (graph.parent / "detector.data").write_bytes(b"WEIGHTS")
    elif change == "tensorrt":
        monkeypatch.setattr(nvidia, "_library", fakes.libraries(tensorrt=100300))
    elif change == "capability":
        monkeypatch.setattr(nvidia, "_library", fakes.libraries(driver=fakes.Driver(capability=(11, 0))))
    else:
        board = engine_cache.jetson.Jetson(
            model=None, l4t="39.2.0", jetpack="7.2", memory_bytes=None, power_mode=None
        )
        monkeypatch.setattr(engine_cache.jetson, "detect", lambda root: board)
    runtimes.prepare("tensorrt", graph, "jetson", precision=precision)
    assert tensorrt.record["builds"] == 2
    assert len(folders(tmp_path)) == 2


def test_a_damaged_engine_of_another_graph_is_no_obstacle(tensorrt, graph, tmp_path):
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / "engine.json").write_text('{"key": 3}')
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp16")
    assert tensorrt.record["timing"] == [b"", b""]


def test_a_file_that_the_graph_does_not_name_is_no_part_of_it(tensorrt, graph):
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    (graph.parent / "notes.txt").write_text("hello")
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    assert tensorrt.record["builds"] == 1


@pytest.mark.parametrize("damage", ["changed", "cut", "unrecorded", "nonsense", "another"])
def test_a_damaged_engine_is_built_again_and_that_is_said(tensorrt, graph, tmp_path, caplog, damage):
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    (folder,) = (tmp_path / "cache").iterdir()
    engine, record = folder / "graph.engine", folder / "engine.json"
    if damage == "changed":
        engine.write_bytes(b"Engine 1")
    elif damage == "cut":
        engine.write_bytes(b"")
    elif damage == "unrecorded":
        record.unlink()
    elif damage == "nonsense":
        record.write_text("[]")
    else:
        record.write_text(record.read_text().replace('"fp32"', '"fp16"'))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        runtime = runtimes.open_runtime("tensorrt", graph, "jetson", precision="fp32")
    assert "is of no use" in caplog.text
    assert "it is built again" in caplog.text
    assert tensorrt.record["builds"] == 2
    assert engine.read_bytes() == b"engine 1"
    assert runtime.run({"x": np.zeros((2, 3), np.float32)})["y"].tolist() == [[1.0] * 3] * 2


def test_a_timing_cache_may_grow(tensorrt, graph, tmp_path):
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / "graph.timing").write_bytes(b"more timings")
    runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    assert tensorrt.record["builds"] == 1


def test_a_whole_engine_that_tensorrt_refuses_is_built_again_once(tensorrt, graph, caplog, monkeypatch):
    trt = importlib.import_module("sam3i_edge.runtimes.trt")
    original = trt.TrtRuntime
    refused = []

    def refuse_once(serialized, name):
        if not refused:
            refused.append(name)
            raise ArtifactError("version tag does not match")
        return original(serialized, name)

    runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    monkeypatch.setattr(trt, "TrtRuntime", refuse_once)
    runtimes.open_runtime("tensorrt", graph, "jetson", precision="fp32")
    assert "version tag does not match" in caplog.text
    assert tensorrt.record["builds"] == 2


def test_a_build_that_fails_leaves_nothing(tensorrt, graph, tmp_path):
    tensorrt.fail_build = True
    with pytest.raises(
        RuntimeUnavailable,
        match=r"the engine of .*detector\.onnx at fp32: Could not find any implementation for node 7",
    ):
        runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    assert folders(tmp_path) == []


def test_a_graph_that_cannot_be_read(tensorrt, graph, tmp_path):
    tensorrt.fail_parse = True
    with pytest.raises(ArtifactError, match=r"cannot read .*unsupported operator Foo"):
        runtimes.prepare("tensorrt", graph, "jetson", precision="fp32")
    assert folders(tmp_path) == []


def test_an_interrupted_build_leaves_nothing_that_looks_whole(tensorrt, graph, tmp_path):
    def stop(words, share):
        if share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runtimes.prepare("tensorrt", graph, "jetson", precision="fp32", progress=stop)
    assert folders(tmp_path) == []


def test_the_engine_of_another_process_stays(tensorrt, graph, tmp_path):
    key = engine_cache.key_of(graph, "tensorrt 10.16.0", "fp32")
    with engine_cache.building(key) as mine:
        (mine / "graph.engine").write_bytes(b"engine mine")
        with engine_cache.building(key) as other:
            (other / "graph.engine").write_bytes(b"engine other")
    assert (engine_cache.find(key) / "graph.engine").read_bytes() == b"engine other"
    assert len(folders(tmp_path)) == 1


def test_an_engine_file_opens_as_it_is(tensorrt, tmp_path):
    path = tmp_path / "detector.engine"
    path.write_bytes(b"engine from elsewhere")
    runtime = runtimes.open_runtime("tensorrt", path, "jetson")
    assert runtime.run({"x": np.ones((2, 3), np.float32)})["y"].sum() == 18
    path.write_bytes(b"not one")
    with pytest.raises(
        ArtifactError, match=r"cannot open detector\.engine \(Serialization assertion failed: version tag"
    ):
        runtimes.open_runtime("tensorrt", path, "jetson")


def test_dynamic_shapes_are_refused(tensorrt, graph):
    tensorrt.slots[0].shape = (-1, 3)
    with pytest.raises(ArtifactError, match=r"'x' has the shape \(-1, 3\), want a static one"):
        runtimes.open_runtime("tensorrt", graph, "jetson", precision="fp32")


@pytest.mark.parametrize("call", ["cudaMemcpyAsync", "cudaStreamSynchronize"])
def test_a_device_that_disappears(tensorrt, cudart, graph, call):
    runtime = runtimes.open_runtime("tensorrt", graph, "jetson", precision="fp32")
    cudart.fail = call
    with pytest.raises(RuntimeUnavailable, match=rf"{call} failed with status 46 .*sam3i-edge doctor"):
        runtime.run({"x": np.zeros((2, 3), np.float32)})


def test_an_execution_that_fails(tensorrt, graph):
    runtime = runtimes.open_runtime("tensorrt", graph, "jetson", precision="fp32")
    tensorrt.record["lost"] = True
    with pytest.raises(RuntimeUnavailable, match=r"detector failed in TensorRT 10\.16\.0"):
        runtime.run({"x": np.zeros((2, 3), np.float32)})


def test_other_devices_and_precisions_are_refused(tensorrt, graph):
    with pytest.raises(RuntimeUnavailable, match="tensorrt runs on jetson, cuda, not on 'cpu'"):
        runtimes.open_runtime("tensorrt", graph, "cpu")
    with pytest.raises(RuntimeUnavailable, match="engines at fp32, fp16, not at 'int8'"):
        runtimes.open_runtime("tensorrt", graph, "jetson", precision="int8")
    with pytest.raises(ArtifactError, match=r"nothing\.onnx does not exist"):
        runtimes.open_runtime("tensorrt", graph.with_name("nothing.onnx"), "jetson")


def test_probe_builds_runs_and_checks_a_tiny_graph(fakes, tensorrt, monkeypatch):
    # The stand-in computes 2 x + 1 and no softmax: the probe must notice.
    tensorrt.slots = [
        fakes.Slot("x", np.float32, (16, 16), True),
        fakes.Slot("y", np.float32, (16, 16), False),
    ]
    with pytest.raises(RuntimeUnavailable, match=r"TensorRT 10\.16\.0 is off by [\d.]+ on jetson"):
        runtimes.probe("tensorrt", "jetson")
    trt = importlib.import_module("sam3i_edge.runtimes.trt")
    x = trt.tiny_input()
    monkeypatch.setattr(trt, "tiny_output", lambda: 2 * x + 1)
    runtimes.probe("tensorrt", "jetson")


def test_probe_without_a_gpu(fakes, tensorrt, monkeypatch):
    monkeypatch.setattr(nvidia, "_library", fakes.libraries(driver=fakes.Driver(gpus=0)))
    with pytest.raises(RuntimeUnavailable, match="does not run: the NVIDIA driver sees no GPU"):
        runtimes.probe("tensorrt", "jetson")
