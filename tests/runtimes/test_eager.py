"""The torch runtime: the same answers as the exported graphs, and clear refusals."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._inductor import cudagraph_trees

from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import save_weights
from sam3i_edge.pipeline.ask import find
from sam3i_edge.runtimes import eager as eager_module
from sam3i_edge.runtimes import open_runtime, probe
from sam3i_edge.runtimes.eager import EagerRuntime, write_graph_file
from sam3i_edge.runtimes.on_device import OnDevice

CONFIG = ModelConfig(
    image_size=64,
    backbone="conv",
    conv_widths=(8, 8, 16, 16),
    text_width=16,
    text_layers=1,
    text_heads=2,
    text_mlp_dim=32,
    vocab_size=64,
    d_model=32,
    n_heads=4,
    ffn_dim=64,
    encoder_layers=1,
    decoder_layers=1,
    num_queries=4,
    geometry_layers=1,
    roi_size=3,
    adapter_dim=8,
    max_detections=4,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    save_weights(SAM3I(CONFIG).eval(), root / "weights")
    (root / "eager-fp32").mkdir()
    for graph in ("image_encoder", "text_encoder.simple", "detector"):
        write_graph_file(root / "eager-fp32" / f"{graph}.json", graph, "weights", CONFIG, 0)
    return root


def test_runs_a_graph_as_the_model_does(bundle: Path) -> None:
    runtime = open_runtime("eager", bundle / "eager-fp32" / "text_encoder.simple.json", "cpu")
    ids = np.arange(32, dtype=np.int64)[None]
    found = runtime.run({"input_ids": ids})
    torch.manual_seed(0)
    model = SAM3I(CONFIG).eval()
    with torch.no_grad():
        want = model.text_encoder(torch.from_numpy(ids), "simple").numpy()
    assert list(found) == ["text_features"]
    np.testing.assert_array_equal(found["text_features"], want)
    runtime.close()
    with pytest.raises(RuntimeUnavailable, match="closed"):
        runtime.run({"input_ids": ids})


def test_refuses_inputs_of_another_shape_dtype_or_name(bundle: Path) -> None:
    runtime = open_runtime("eager", bundle / "eager-fp32" / "text_encoder.simple.json", "cpu")
    with pytest.raises(ValueError, match="wants the inputs input_ids, got ids"):
        runtime.run({"ids": np.zeros((1, 32), np.int64)})
    with pytest.raises(ValueError, match=r"torch.int32 \[1, 32\], want torch.int64 \[1, 32\]"):
        runtime.run({"input_ids": np.zeros((1, 32), np.int32)})
    with pytest.raises(ValueError, match=r"\[1, 31\]"):
        runtime.run({"input_ids": np.zeros((1, 31), np.int64)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"graph": "text_encoder.other"}, "which the model lacks"),
        ({"source": "elsewhere"}, "which the bundle lacks"),
        ({"source": "../weights"}, "describes no graph"),
        ({"unknown": 1}, "describes no graph"),
    ],
)
def test_refuses_a_damaged_description(bundle: Path, tmp_path: Path, change: dict, message: str) -> None:
    good = json.loads((bundle / "eager-fp32" / "detector.json").read_text())
    place = bundle / "eager-bad"
    place.mkdir(exist_ok=True)
    (place / "detector.json").write_text(json.dumps({**good, **change}))
    with pytest.raises(ArtifactError, match=message):
        open_runtime("eager", place / "detector.json", "cpu")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.json cannot be read"):
        open_runtime("eager", tmp_path / "none.json", "cpu")


def test_probe_and_devices() -> None:
    probe("eager", "cpu")
    with pytest.raises(RuntimeUnavailable, match="cpu and cuda"):
        probe("eager", "apple")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeUnavailable, match="no CUDA device"):
            probe("eager", "cuda")


def _detector_inputs(runtime: EagerRuntime) -> dict[str, np.ndarray]:
    spec = runtime._spec
    drawn = {name: torch.randn_like(x) if x.is_floating_point() else x for name, x in spec.inputs.items()}
    return {name: value.numpy() for name, value in drawn.items()}


def test_large_outputs_stay_and_only_the_rows_that_are_read_come_back(bundle: Path, monkeypatch) -> None:
    opened = open_runtime("eager", bundle / "eager-fp32" / "detector.json", "cpu")
    inputs = _detector_inputs(opened)
    expected = opened.run(inputs)
    keeps = EagerRuntime(opened._spec, torch.device("cpu"), large=4 * 4 * 16 * 16)
    found = keeps.run({**inputs, "fpn_4x": OnDevice(torch.from_numpy(inputs["fpn_4x"]))})
    assert {name for name, value in found.items() if isinstance(value, OnDevice)} == {"mask_logits"}
    fetched = []
    on_device = sys.modules["sam3i_edge.runtimes.on_device"]
    to_host = on_device.to_host
    monkeypatch.setattr(on_device, "to_host", lambda t: fetched.extend(x.shape for x in t) or to_host(t))
    scores = expected["scores"][0]
    threshold = float(np.sort(scores)[-2] + np.sort(scores)[-1]) / 2  # one passes
    one = find(found, (32, 32), threshold=threshold)
    np.testing.assert_array_equal(one.mask_logits, find(expected, (32, 32), threshold=threshold).mask_logits)
    assert [tuple(shape) for shape in fetched] == [(1, 16, 16)]
    stays = found["mask_logits"]
    assert (stays.shape, stays.dtype, stays.nbytes) == (expected["mask_logits"].shape, np.float32, 4096)
    np.testing.assert_array_equal(np.asarray(stays), expected["mask_logits"])


def test_a_compiled_graph_answers_as_the_eager_one(bundle: Path, monkeypatch) -> None:
    compiled, threads = [], set()

    def compile_without_inductor(module, **options):  # which would take a minute of C++
        compiled.append(options)
        graph = torch._dynamo.optimize("eager", nopython=options["fullgraph"])(module)

        def call(*inputs):
            threads.add((threading.get_ident(), hasattr(cudagraph_trees.local, "tree_manager_containers")))
            return graph(*inputs)

        return call

    path = bundle / "eager-fp32" / "detector.json"
    plain = open_runtime("eager", path, "cpu")
    inputs = _detector_inputs(plain)
    monkeypatch.setattr(eager_module.torch, "compile", compile_without_inductor)
    runtime = open_runtime("eager", path, "cpu", compile=True)
    assert compiled == [{"mode": "reduce-overhead", "fullgraph": True}]
    with ThreadPoolExecutor(1) as other:
        found = other.submit(runtime.run, inputs).result()
    for name, value in plain.run(inputs).items():
        np.testing.assert_array_equal(runtime.run(inputs)[name], value)
        np.testing.assert_array_equal(found[name], value)
    ((thread, owns_cuda_graphs),) = threads  # the same, whoever asks
    assert thread != threading.get_ident()
    assert owns_cuda_graphs
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeUnavailable, match="closed"):
        runtime.run(inputs)


def test_compile_is_refused_of_other_runtimes(bundle: Path) -> None:
    with pytest.raises(ValueError, match="compile is for runtime 'eager', and this is 'onnxruntime'"):
        open_runtime("onnxruntime", bundle / "eager-fp32" / "detector.json", "cpu", compile=True)
