"""ONNX Runtime on devices that are not here: what it is asked is recorded.

A CPU session stands in for the one that it would make. Not run on hardware.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from sam3i_edge import Segmenter
from sam3i_edge.devices import jetson, nvidia
from sam3i_edge.devices import profiles as devices
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.pipeline.graphs import Graphs
from sam3i_edge.runtimes import engine_cache, open_runtime, ort, prepare, probe


@pytest.fixture
def sessions(fakes, monkeypatch, tmp_path):
    """Arguments of every session that was asked for; `sessions.behaves` changes what comes of it."""

    class Sessions(list):
        behaves = "well"

    asked = Sessions()
    real, allocate = onnxruntime.InferenceSession, onnxruntime.OrtValue.ortvalue_from_shape_and_type

    class Session:
        def __init__(self, model, options, *, providers, enable_fallback):
            ((name, settings),) = providers
            asked.append(
                {"provider": name, "options": options, "settings": settings, "fallback": enable_fallback}
            )
            folder = settings.get("trt_engine_cache_path")
            if asked.behaves == "refuses" or (asked.behaves == "refuses once" and folder in asked.whole):
                asked.behaves = "well" if asked.behaves == "refuses once" else asked.behaves
                raise ort._state.Fail("[ONNXRuntimeError] : 1 : FAIL : deserialize failed")
            self._session = real(model, providers=["CPUExecutionProvider"])
            self._providers = ["CPUExecutionProvider"] if asked.behaves == "runs on the CPU" else [name]
            if folder is not None and asked.behaves != "keeps nothing":
                path = Path(folder) / "TensorrtExecutionProvider_0_sm87.engine"
                if not path.exists():
                    path.write_bytes(b"engine")
                    Path(folder, "TensorrtExecutionProvider_cache_sm87.timing").write_bytes(b"t")
                asked.whole.add(str(Path(folder)))

        def get_providers(self):
            return self._providers

        def disable_fallback(self):
            asked[-1]["fallback"] = "disabled"

        def run_with_iobinding(self, binding):
            if asked.behaves == "is lost":
                raise ort._state.Fail("CUDA failure 46: all CUDA-capable devices are busy or unavailable")
            self._session.run_with_iobinding(binding)

        def __getattr__(self, name):
            return getattr(self._session, name)

    asked.whole = set()
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(
        onnxruntime.OrtValue,
        "ortvalue_from_shape_and_type",
        staticmethod(lambda shape, dtype, memory, number: allocate(shape, dtype, "cpu", number)),
    )
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    )
    monkeypatch.setattr(nvidia, "_library", fakes.libraries())
    monkeypatch.setattr(engine_cache, "cache_folder", lambda: tmp_path / "cache")
    return asked


PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
IDS = {"input_ids": np.arange(32, dtype=np.int64)[None]}


def test_a_binding_gives_what_a_plain_run_gives_and_keeps_its_buffers(tiny_bundle, runtime):
    session = ort._session(str(tiny_bundle.graphs("onnx-fp32")["detector"]), "cpu", 1)
    binding = ort.Binding(session, "detector", "cpu")
    rng = np.random.default_rng(0)
    addresses = {name: value.data_ptr() for name, value in {**binding._inputs, **binding._outputs}.items()}
    earlier = None
    for _ in range(3):
        inputs = {
            i.name: (rng.normal(size=i.shape) > 0 if "bool" in i.type else rng.normal(size=i.shape)).astype(
                ort._DTYPES[i.type]
            )
            for i in session.get_inputs()
        }
        inputs["level"] = np.array([rng.integers(3)])
        got = binding.run(inputs)
        for name, value in zip(got, session.run(list(got), inputs), strict=True):
            np.testing.assert_array_equal(got[name], value)
        assert earlier is None or not np.array_equal(earlier["presence"], got["presence"])
        earlier = got
    assert addresses == {n: v.data_ptr() for n, v in {**binding._inputs, **binding._outputs}.items()}


def test_a_gpu_gets_one_provider_and_no_way_back_to_the_cpu(runtime, sessions, text_encoder):
    on_gpu = open_runtime("onnxruntime", text_encoder, "cuda")
    (asked,) = sessions
    assert asked["provider"] == "CUDAExecutionProvider"
    assert asked["settings"]["use_tf32"] == "0"
    assert asked["options"].get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
    assert asked["fallback"] == "disabled"
    np.testing.assert_array_equal(on_gpu.run(IDS)["text_features"], runtime.run(IDS)["text_features"])
    on_gpu.close()
    with pytest.raises(RuntimeUnavailable, match="was closed"):
        on_gpu.run(IDS)


def test_jetson_keeps_norms_in_float32_and_keeps_engines(runtime, sessions, text_encoder, caplog):
    opened = open_runtime("onnxruntime", text_encoder, "jetson", precision="fp16")
    assert (
        "building the engine of text_encoder.simple for this device; this can take 10 minutes" in caplog.text
    )
    build, use = sessions
    for asked in (build, use):
        assert asked["provider"] == "TensorrtExecutionProvider"
        assert asked["settings"]["trt_fp16_enable"] == "True"
        assert asked["settings"]["trt_layer_norm_fp32_fallback"] == "True"
        assert asked["settings"]["trt_engine_cache_enable"] == "True"
        assert asked["settings"]["trt_timing_cache_path"] == asked["settings"]["trt_engine_cache_path"]
    (kept,) = engine_cache.cache_folder().iterdir()
    assert use["settings"]["trt_engine_cache_path"] == str(kept)
    assert build["settings"]["trt_engine_cache_path"] != str(kept), "what is being built is elsewhere"
    np.testing.assert_array_equal(opened.run(IDS)["text_features"], runtime.run(IDS)["text_features"])


def test_jetson_at_fp32(sessions, text_encoder):
    prepare("onnxruntime", text_encoder, "jetson", precision="fp32")
    assert sessions[0]["settings"]["trt_fp16_enable"] == "False"
    assert "trt_layer_norm_fp32_fallback" not in sessions[0]["settings"]


@pytest.fixture
def on_cpu(tiny_bundle):
    with Segmenter(tiny_bundle.root, threads=1, threshold=0.0) as segmenter:
        return segmenter.segment(PICTURE, "the red star")


def test_a_segmenter_on_a_jetson_from_its_files_to_its_masks(
    on_cpu, sessions, tiny_bundle, monkeypatch, caplog
):
    board = jetson.Jetson(model="Orin", l4t="36.4.3", jetpack="6.2", memory_bytes=None, power_mode=None)
    monkeypatch.setattr(jetson, "detect", lambda root: board)
    ort.probe.cache_clear()
    seen = []
    with Segmenter(tiny_bundle.root, device="jetson", threads=1, threshold=0.0) as segmenter:
        info = segmenter.info
        assert (info.device, info.runtime, info.precision) == ("jetson", "onnxruntime", "fp16")
        assert "the fp16 engine is built from onnx-fp32" in info.reason
        segmenter.prepare(lambda words, share: seen.append((words, share)))
        result = segmenter.segment(PICTURE, "the red star")
    assert sum("can take 10 minutes" in words for words, _ in seen) == 5, "one for each graph"
    assert [share for _, share in seen] == sorted(share for _, share in seen)
    assert seen[-1] == ("ready", 1.0)
    assert caplog.text == ""
    np.testing.assert_array_equal(result.mask_logits, on_cpu.mask_logits)
    assert (result.device, result.precision) == ("jetson", "fp16")
    assert len(list(engine_cache.cache_folder().iterdir())) == 5
    ort.probe.cache_clear()


def test_a_build_without_anybody_to_tell_is_in_the_log(sessions, tiny_bundle, caplog):
    choice = devices.Choice(
        device="jetson", runtime="onnxruntime", precision="fp32", variant="onnx-fp32", builds=True, reason=""
    )
    Graphs(tiny_bundle, choice, 1).prepare()
    assert caplog.text.count("can take 10 minutes") == 5


def test_an_engine_is_built_once(sessions, text_encoder, caplog):
    seen = []
    prepare("onnxruntime", text_encoder, "jetson", precision="fp16", progress=lambda *step: seen.append(step))
    assert [share for _, share in seen] == [0.0, 1.0]
    assert "can take 10 minutes" in seen[0][0]
    prepare("onnxruntime", text_encoder, "jetson", precision="fp16")
    open_runtime("onnxruntime", text_encoder, "jetson", precision="fp16")
    assert len(sessions) == 2
    assert caplog.text == ""


def test_a_damaged_engine_is_built_again_and_that_is_said(sessions, text_encoder, caplog):
    prepare("onnxruntime", text_encoder, "jetson", precision="fp16")
    (kept,) = engine_cache.cache_folder().iterdir()
    (kept / "TensorrtExecutionProvider_0_sm87.engine").write_bytes(b"e")
    caplog.clear()
    open_runtime("onnxruntime", text_encoder, "jetson", precision="fp16").run(IDS)
    assert "sm87.engine was changed): it is built again" in caplog.text
    assert (kept / "TensorrtExecutionProvider_0_sm87.engine").read_bytes() == b"engine"


def test_an_engine_that_tensorrt_refuses_is_built_again_once(sessions, text_encoder, caplog):
    prepare("onnxruntime", text_encoder, "jetson", precision="fp16")
    (kept,) = engine_cache.cache_folder().iterdir()
    sessions.whole = {str(kept)}
    sessions.behaves = "refuses once"
    open_runtime("onnxruntime", text_encoder, "jetson", precision="fp16").run(IDS)
    assert "deserialize failed): it is built again" in caplog.text


def test_a_build_that_fails_leaves_nothing(sessions, text_encoder):
    sessions.behaves = "refuses"
    with pytest.raises(RuntimeUnavailable, match=r"TensorRT cannot build the engine of .*deserialize failed"):
        prepare("onnxruntime", text_encoder, "jetson", precision="fp16")
    assert list(engine_cache.cache_folder().iterdir()) == []


def test_a_graph_that_tensorrt_leaves_alone_is_refused(sessions, text_encoder):
    sessions.behaves = "keeps nothing"
    with pytest.raises(RuntimeUnavailable, match=r"kept no engine of .*TensorRT took no part"):
        prepare("onnxruntime", text_encoder, "jetson", precision="fp16")


def test_an_engine_that_a_bundle_brings_is_never_opened(sessions, tmp_path):
    node = onnx.helper.make_node(
        "EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=0, ep_cache_context="evil.engine"
    )
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "brought", values[:1], values[1:])
    path = tmp_path / "detector.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ArtifactError, match=r"holds an engine that was built elsewhere .*export the bundle"):
        open_runtime("onnxruntime", path, "jetson", precision="fp32")
    assert sessions == [], "nothing was opened"


@pytest.mark.parametrize("device", ["cuda", "jetson"])
def test_a_provider_that_is_not_built_in_is_named(text_encoder, device):
    with pytest.raises(
        RuntimeUnavailable, match=rf"'{device}' needs \w+ExecutionProvider, and onnxruntime .* was built with"
    ):
        probe("onnxruntime", device)


@pytest.mark.parametrize("device", ["cuda", "jetson"])
def test_a_session_that_lands_on_the_cpu_is_refused(sessions, device):
    sessions.behaves = "runs on the CPU"
    ort.probe.cache_clear()
    with pytest.raises(
        RuntimeUnavailable, match=r"was asked for, and onnxruntime .* runs CPUExecutionProvider"
    ):
        probe("onnxruntime", device)


def test_a_device_that_disappears(sessions, text_encoder):
    opened = open_runtime("onnxruntime", text_encoder, "cuda")
    sessions.behaves = "is lost"
    with pytest.raises(RuntimeUnavailable, match=r"busy or unavailable; ask 'sam3i-edge doctor'"):
        opened.run(IDS)


def test_dynamic_shapes_are_refused_on_a_gpu(sessions, tmp_path):
    path = tmp_path / "dynamic.onnx"
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "x"], ["y"])],
        "dynamic",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])],
    )
    onnx.save(
        onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]), path
    )
    with pytest.raises(ArtifactError, match=r"'x' is tensor\(float\) \['n'\], and a GPU wants static shapes"):
        open_runtime("onnxruntime", path, "cuda")
