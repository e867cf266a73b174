from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("openvino")

import openvino

from sam3i_edge.devices import machine
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.runtimes import open_runtime, ov, probe
from sam3i_edge.runtimes.tiny_graph import tiny_graph, tiny_input, tiny_output


@pytest.fixture
def runtime(text_encoder):
    return open_runtime("openvino", text_encoder, "cpu", threads=1)


@pytest.fixture
def saved(tmp_path):
    """Writes the tiny graph as IR, exported at a precision."""

    def save(precision: str) -> Path:
        model = ov.shared_core().read_model(tiny_graph(), b"")
        model.set_rt_info(precision, ov.PRECISION_KEY)
        path = tmp_path / f"{precision}.xml"
        openvino.save_model(model, path, compress_to_fp16=precision == "fp16")
        return path

    return save


@pytest.fixture
def fake_device(monkeypatch):
    """A Core that has a further device; what is compiled for it runs on the CPU and says what it is told."""
    asked = []

    class Compiled:
        def __init__(self, compiled, config, target, lies):
            self._compiled, self._lies = compiled, {"EXECUTION_DEVICES": [target], **config, **lies}

        def get_property(self, name):
            value = self._lies[name] if name in self._lies else self._compiled.get_property(name)
            if name == "INFERENCE_PRECISION_HINT" and isinstance(value, str):
                return getattr(openvino.Type, value)
            return value

        def __getattr__(self, name):
            return getattr(self._compiled, name)

    def install(device, **lies):
        core = ov.shared_core()

        def compile_model(model, target, config):
            asked.append((target, config))
            plain = {"INFERENCE_PRECISION_HINT": "f32"}
            return Compiled(core.compile_model(model, "CPU", plain), config, target, lies)

        fake = SimpleNamespace(
            available_devices=["CPU", device],
            read_model=core.read_model,
            get_property=lambda target, name: core.get_property("CPU", name),
            compile_model=compile_model,
        )
        monkeypatch.setattr(ov, "shared_core", lambda: fake)
        return asked

    return install


def test_runs_an_onnx_file_with_the_data_file_beside_it(runtime, text_encoder):
    ids = np.arange(32, dtype=np.int64)[None]
    want = open_runtime("onnxruntime", text_encoder, "cpu", threads=1).run({"input_ids": ids})
    got = runtime.run({"input_ids": ids})
    assert list(got) == ["text_features"]
    np.testing.assert_allclose(got["text_features"], want["text_features"], atol=1e-6)


def test_computes_in_float32_where_the_processor_would_take_bfloat16(saved):
    runtime = ov.open(saved("fp32"), "cpu", 1)
    assert np.abs(runtime.run({"x": tiny_input()})["y"] - tiny_output()).max() < 1e-6
    assert runtime.settings == ov.CompileSettings(
        devices=("CPU",), precision="f32", dynamic_quantization=0, threads=1, hint="LATENCY", cache=None
    )


def test_outputs_and_inputs_belong_to_the_caller(saved):
    runtime = ov.open(saved("fp32"), "cpu", 1)
    x = tiny_input()
    x.flags.writeable = False
    first = runtime.run({"x": x})["y"]
    kept = first.copy()
    second = runtime.run({"x": x.T})["y"]  # a view whose rows do not lie together
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(second, runtime.run({"x": np.ascontiguousarray(x.T)})["y"])


def test_a_graph_of_large_maps_gives_its_memory_back(saved, monkeypatch):
    monkeypatch.setattr(ov, "_LARGE", 2 * tiny_input().nbytes)
    runtime = open_runtime("openvino", saved("fp32"), "cpu", threads=1)
    released = []

    class Compiled:
        def __init__(self, compiled):
            self._compiled = compiled

        def release_memory(self):
            released.append(self._compiled.release_memory())

        def __getattr__(self, name):
            return getattr(self._compiled, name)

    runtime._compiled = Compiled(runtime._compiled)
    for runs in (1, 2):
        np.testing.assert_allclose(runtime.run({"x": tiny_input()})["y"], tiny_output(), rtol=1e-5)
        assert len(released) == runs
    monkeypatch.setattr(ov, "_LARGE", 2 * tiny_input().nbytes + 1)
    assert not open_runtime("openvino", saved("fp32"), "cpu", threads=1)._releases


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "wants the inputs input_ids, got none"),
        ({"ids": np.zeros((1, 32), np.int64)}, "wants the inputs input_ids, got ids"),
        ({"input_ids": np.zeros((1, 32), np.int32)}, r"is int32 \[1, 32\], want int64 \[1, 32\]"),
        ({"input_ids": np.zeros((1, 31), np.int64)}, r"is int64 \[1, 31\], want int64 \[1, 32\]"),
    ],
)
def test_wrong_inputs(runtime, inputs, message):
    with pytest.raises(ValueError, match=message):
        runtime.run(inputs)


def test_closed_runtime_refuses(runtime):
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeUnavailable, match="was closed"):
        runtime.run({"input_ids": np.zeros((1, 32), np.int64)})


def test_missing_graph(tmp_path):
    with pytest.raises(ArtifactError, match=r"no\.xml does not exist"):
        open_runtime("openvino", tmp_path / "no.xml", "cpu")


@pytest.mark.parametrize("content", [b"not a graph", b"", b"<?xml version='1.0'?><net name='x'"])
def test_damaged_graph(tmp_path, capfd, content):
    (tmp_path / "bad.xml").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"openvino cannot open .*bad\.xml") as caught:
        open_runtime("openvino", tmp_path / "bad.xml", "cpu")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_weights_that_were_cut_off(tmp_path):
    x = openvino.opset13.parameter([1, 64], np.float32, name="x")
    table = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    y = openvino.opset13.matmul(x, openvino.opset13.constant(table), False, False)
    openvino.save_model(openvino.Model([y], [x]), tmp_path / "graph.xml", compress_to_fp16=False)
    weights = tmp_path / "graph.bin"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"openvino cannot open .*graph\.xml"):
        open_runtime("openvino", tmp_path / "graph.xml", "cpu")


def test_unknown_device(text_encoder):
    with pytest.raises(RuntimeUnavailable, match="runs on cpu, intel-gpu, intel-npu, auto, not on 'apple'"):
        open_runtime("openvino", text_encoder, "apple")


def test_a_device_that_is_not_here(text_encoder, monkeypatch):
    fake = SimpleNamespace(available_devices=["CPU"], get_property=ov.shared_core().get_property)
    monkeypatch.setattr(ov, "shared_core", lambda: fake)
    with pytest.raises(RuntimeUnavailable, match=r"finds CPU here and no GPU.*device='cpu'"):
        open_runtime("openvino", text_encoder, "intel-gpu")


def test_threads(saved):
    path = saved("fp32")
    assert ov.open(path, "cpu", None).settings.threads == machine.usable_cores()


def test_auto_takes_a_device_and_tells_which(saved):
    runtime = ov.open(saved("fp32"), "auto", 1)
    assert runtime.settings.devices
    assert runtime.settings.precision == "f32"


def test_what_a_gpu_is_asked_for(fake_device, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(ov, "user_cache", lambda name: tmp_path / "sam3i-edge" / name)
    asked = fake_device("GPU", EXECUTION_DEVICES=["GPU.0"])
    runtime = ov.open(saved("fp16"), "intel-gpu")
    folder = tmp_path / "sam3i-edge" / "openvino"
    assert runtime.settings == ov.CompileSettings(
        ("GPU.0",), "f16", 0, runtime.settings.threads, "LATENCY", folder
    )
    ov.open(saved("fp32"), "intel-gpu", low_memory=True)
    both = {"PERFORMANCE_HINT": "LATENCY", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    assert asked == [
        ("GPU", {**both, "INFERENCE_PRECISION_HINT": "f16", "CACHE_DIR": str(folder)}),
        ("GPU", {**both, "INFERENCE_PRECISION_HINT": "f32"}),
    ]


def test_an_npu_refuses_float32(fake_device, saved):
    asked = fake_device("NPU")
    with pytest.raises(RuntimeUnavailable, match=r"computes in float16 and fp32\.xml is fp32"):
        ov.open(saved("fp32"), "intel-npu")
    ov.open(saved("int8"), "intel-npu", low_memory=True)
    assert [config["INFERENCE_PRECISION_HINT"] for _, config in asked] == ["f16"]


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"EXECUTION_DEVICES": ["CPU"]}, "GPU was asked for, and openvino runs on CPU"),
        ({"INFERENCE_PRECISION_HINT": "bf16"}, "was told to compute in f16 .* computes in bf16"),
        ({"DYNAMIC_QUANTIZATION_GROUP_SIZE": 32}, "with groups of 32"),
    ],
)
def test_what_is_read_back_must_be_what_was_asked(fake_device, saved, lie, message):
    fake_device("GPU", **lie)
    with pytest.raises(RuntimeUnavailable, match=message):
        ov.open(saved("fp16"), "intel-gpu", low_memory=True)


def test_a_device_that_disappears(fake_device, saved):
    fake_device("GPU")
    runtime = ov.open(saved("fp16"), "intel-gpu", low_memory=True)

    class Lost:
        def create_infer_request(self):
            raise RuntimeError("[GPU] clFlush, error code: -36\n CL_INVALID_COMMAND_QUEUE")

    runtime._compiled = Lost()
    message = r"fp16\.xml failed in openvino: \[GPU\] clFlush, .*_COMMAND_QUEUE; ask 'sam3i-edge doctor'"
    with pytest.raises(RuntimeUnavailable, match=message) as raised:
        runtime.run({"x": tiny_input()})
    assert "\n" not in str(raised.value)


def test_probe_runs_the_graph(monkeypatch):
    ran = []
    real = ov.OpenVinoRuntime.run
    monkeypatch.setattr(ov.OpenVinoRuntime, "run", lambda self, inputs: ran.append(1) or real(self, inputs))
    ov.probe.cache_clear()
    probe("openvino", "cpu")
    assert ran == [1]


def test_probe_reports_wrong_sums(monkeypatch):
    ov.probe.cache_clear()
    good = ov._add_graph()
    monkeypatch.setattr(ov, "_add_graph", lambda: good.replace(b"\x22\x03Add", b"\x22\x03Sub"))
    with pytest.raises(RuntimeUnavailable, match=r"computes 1 \+ 1 = 0.0 on cpu"):
        probe("openvino", "cpu")
    ov.probe.cache_clear()


def test_nothing_is_printed(text_encoder, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        open_runtime("openvino", text_encoder, "cpu").run({"input_ids": np.zeros((1, 32), np.int64)})
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.skipif(sys.platform != "linux", reason="only there OpenVINO sets a stack for signals")
def test_a_signal_after_graphs_were_closed_in_the_order_of_their_opening(saved):
    script = (
        "import gc, os, signal, sys\n"
        "from pathlib import Path\n"
        "from sam3i_edge.runtimes import ov\n"
        "signal.signal(signal.SIGINT, lambda *_: print('told'))\n"
        "opened = [ov.open(Path(sys.argv[1]), 'cpu', 1) for _ in range(2)]\n"
        "while opened:\n"
        "    opened.pop(0).close()\n"
        "    gc.collect()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, saved("fp32")], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "told\n"), ran.stderr


def test_compiled_graphs_are_for_this_user_only(fake_device, saved, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ov, "user_cache", lambda name: tmp_path / name)
    asked = fake_device("GPU")
    folder = tmp_path / "openvino"
    folder.mkdir(mode=0o755)
    (folder / "graph.blob").write_bytes(b"compiled")
    (folder / "graph.blob").chmod(0o644)
    ov.open(saved("fp16"), "intel-gpu")
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "graph.blob")] == [0o700, 0o600]
    assert asked[-1][1]["CACHE_DIR"] == str(folder)
    (folder / "graph.blob").chmod(0o666)
    ov.open(saved("fp16"), "intel-gpu")
    assert "CACHE_DIR" not in asked[-1][1]
    assert "compiled graphs are not kept" in caplog.text
    assert "may be written by others" in caplog.text


def test_without_a_home_it_runs_and_says_that_it_keeps_nothing(fake_device, saved, monkeypatch, caplog):
    def no_home(name):
        raise RuntimeUnavailable("this user has no home folder")

    monkeypatch.setattr(ov, "user_cache", no_home)
    asked = fake_device("GPU")
    ov.open(saved("fp16"), "intel-gpu").run({"x": tiny_input()})
    assert "CACHE_DIR" not in asked[-1][1]
    assert "compiled graphs are not kept, each opening compiles them anew: this user has no" in caplog.text


FORKED = """
import os, sys
from pathlib import Path
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.runtimes import ov, tiny_graph
path = Path(sys.argv[1])
runtime = ov.open(path, 'cpu', 2)
runtime.run({'x': tiny_graph.tiny_input()})
child = os.fork()
if not child:
    for use in (lambda: runtime.run({'x': tiny_graph.tiny_input()}), lambda: ov.open(path, 'cpu', 2)):
        try:
            use()
        except RuntimeUnavailable as error:
            print(error, flush=True)
    runtime.close()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_is_told_to_spawn_and_does_not_wait(saved):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, saved("fp32")], capture_output=True, text=True, timeout=60, check=True
    )
    first, second, code = done.stdout.splitlines()
    assert first == second
    assert "does not work in the child" in first
    assert "multiprocessing.get_context('spawn')" in first
    assert code == "7"
