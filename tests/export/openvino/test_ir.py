from __future__ import annotations

import dataclasses
import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("openvino")


from sam3i_edge.agreement import LIMITS, Limits, model_pairs
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.errors import ArtifactError, ExportError
from sam3i_edge.export import targets
from sam3i_edge.export.gate import Gate
from sam3i_edge.export.onnx.graph_file import write_graph
from sam3i_edge.export.openvino import ir as openvino_ir
from sam3i_edge.export.openvino.integers import check_integers, integer_work, read_integers
from sam3i_edge.export.openvino.ir import write_ir
from sam3i_edge.export.staged import TorchGraphs
from sam3i_edge.export.targets import write_variant
from sam3i_edge.model import attention
from sam3i_edge.model.graph_specs import GraphSpec, graph_specs
from sam3i_edge.model.weights import read_config
from sam3i_edge.pipeline.tokenizer import SPECIAL_TOKENS, Tokenizer
from sam3i_edge.quantize.spec import QuantSpec
from sam3i_edge.runtimes import open_runtime
from sam3i_edge.runtimes.ov import shared_core

START, END = (SPECIAL_TOKENS.index(token) for token in ("<start>", "<end>"))
# Of random weights the queries lie so near each other that their order is a matter of one step.
EXACT = {"image_encoder": ("fpn_4x", "fpn_2x", "fpn_1x", "cls_token"), "detector": ("presence",)}


def test_attention_in_pieces_takes_all_queries_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "LOGITS", 2 * 7 * 16)
    attend = attention.Attention(16, 2).eval()
    inputs = {"query": torch.randn(1, 50, 16), "key": torch.randn(1, 7, 16), "value": torch.randn(1, 7, 16)}
    write_graph(GraphSpec("g", attend, inputs, ("y",)), tmp_path, {})
    write_ir(tmp_path / "g.onnx", tmp_path / "g.xml", "fp32")
    kinds = ("SoftMax", "Softmax", "ScaledDotProductAttention")
    counts = [
        sum(node.get_type_name() in kinds for node in shared_core().read_model(path).get_ops())
        for path in (tmp_path / "g.onnx", tmp_path / "g.xml")
    ]
    assert counts == [4, 1]
    given = {name: value.numpy() for name, value in inputs.items()}
    found = open_runtime("openvino", tmp_path / "g.xml", "cpu", threads=1).run(given)["y"]
    with torch.no_grad():
        np.testing.assert_allclose(found, attend(**inputs).numpy(), rtol=1e-4, atol=1e-6)


def convert(graphs: dict[str, Path], folder: Path, precision: str) -> dict[str, Path]:
    paths = {}
    for graph, source in graphs.items():
        paths[graph] = folder / f"{graph}.xml"
        write_ir(source, paths[graph], precision)
    return paths


@pytest.fixture(scope="session")
def onnx(exported) -> dict[str, Path]:
    return {
        name: exported.bundle / path for name, path in exported.manifest.variants["onnx-fp32"].graphs.items()
    }


@pytest.fixture(scope="session")
def fp32(onnx, tmp_path_factory) -> dict[str, Path]:
    return convert(onnx, tmp_path_factory.mktemp("fp32"), "fp32")


@pytest.fixture(scope="session")
def int8(quantized, tmp_path_factory) -> dict[str, Path]:
    return convert(dict(quantized.bundle.graphs("onnx-int8")), tmp_path_factory.mktemp("int8"), "int8")


@pytest.fixture(scope="session")
def tokenizer(exported) -> Tokenizer:
    return Tokenizer.from_file(exported.run / "tokenizer.json", start_id=START, end_id=END)


@pytest.fixture(scope="session")
def int4(four_bits, tmp_path_factory) -> tuple[QuantSpec, dict[str, Path]]:
    spec, paths = four_bits
    graphs = {name: paths[name] for name in ("image_encoder", "text_encoder.simple")}
    return spec, convert(graphs, tmp_path_factory.mktemp("int4"), "int4")


def inputs_of(runtime) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    made = {
        "input_ids": lambda shape: rng.integers(0, 300, shape),
        "level": lambda shape: np.array([2]),
        "prompt_mask": lambda shape: np.arange(shape[1])[None] % 3 != 1,
    }
    return {
        name: made.get(name, rng.standard_normal)(shape).astype(dtype)
        for name, (dtype, shape) in runtime._inputs.items()
    }


@pytest.mark.parametrize("graph", ["image_encoder", "text_encoder.complex", "detector"])
def test_float32_gives_what_onnx_runtime_gives(onnx, fp32, graph):
    runtime = open_runtime("openvino", fp32[graph], "cpu", threads=1)
    inputs = inputs_of(runtime)
    want = open_runtime("onnxruntime", onnx[graph], "cpu", threads=1).run(inputs)
    got = runtime.run(inputs)
    assert list(got) == list(want)
    for name, value in want.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(
            got[name], value, rtol=0, atol=3e-5 * max(1, np.abs(value).max()), err_msg=name
        )


def test_a_graph_says_its_precision_and_no_path_of_this_machine(fp32, onnx):
    model = shared_core().read_model(fp32["detector"])
    assert model.get_rt_info(openvino_ir.PRECISION_KEY).astype(str) == "fp32"
    assert model.get_friendly_name() == "detector"
    assert str(onnx["detector"].parent) not in fp32["detector"].read_text()


def test_float16_halves_the_weights(fp32, onnx, tmp_path):
    half = convert({"text_encoder.simple": onnx["text_encoder.simple"]}, tmp_path, "fp16")[
        "text_encoder.simple"
    ]
    whole = fp32["text_encoder.simple"]
    sizes = [path.with_suffix(".bin").stat().st_size for path in (half, whole)]
    assert sizes[0] < 0.6 * sizes[1]
    runtime = open_runtime("openvino", half, "cpu", threads=1)
    assert runtime.settings.precision == "f32"
    inputs = inputs_of(runtime)
    got, want = (r.run(inputs)["text_features"] for r in (runtime, open_runtime("openvino", whole, "cpu")))
    assert 0 < np.abs(got - want).max() < 0.01 * np.abs(want).max()


def test_int8_integers_scales_and_activations_are_those_of_the_spec(quantized, int8):
    assert check_integers(quantized.spec, int8) == len(quantized.spec.layers)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of kernels are those of x64")
@pytest.mark.parametrize("graph", ["image_encoder", "detector"])
def test_int8_gives_what_the_spec_defines_in_every_run(quantized, int8, graph):
    """Where the order of a sum decides, one value moves by a step; many that move, or a later run, show."""
    file = quantized.bundle.root / "quant" / "int8.safetensors"
    defined = TorchGraphs(file, read_config(quantized.bundle.root / "weights"))
    runtime = open_runtime("openvino", int8[graph], "cpu", threads=1)
    rng = np.random.default_rng(3)
    with defined.open(graph) as run:
        for _ in range(3):
            inputs = inputs_of(runtime)
            for name, value in inputs.items():
                if value.dtype == np.float32:
                    inputs[name] = rng.standard_normal(value.shape).astype(np.float32)
            want, got = run(inputs), runtime.run(inputs)
            for name in EXACT[graph]:
                error = np.linalg.norm(got[name] - want[name]) / np.linalg.norm(want[name])
                assert error < 0.003, name


def test_layers_that_read_a_constant_are_run_each_time(exported, int4):
    spec, paths = int4
    runtime = open_runtime("openvino", paths["image_encoder"], "cpu", threads=1)
    graph = next(g for g in graph_specs(spec.build(exported.model.config)) if g.name == "image_encoder")
    for seed in range(3):
        values = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            want = dict(zip(graph.outputs, graph.module(values), strict=True))
        got = runtime.run({"pixel_values": values.numpy()})
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value.numpy(), rtol=0, atol=2e-5 * float(value.abs().max()))


def test_int8_runs_in_integer_kernels(int8, fp32):
    for graph, path in int8.items():
        integer, total = integer_work(path)
        floats, same = integer_work(fp32[graph])
        assert floats == 0
        assert 0.95 * total < same <= total  # the float graph folds what reads a learned token
        assert integer >= 0.7 * total, graph
    counts = [integer_work(path) for path in int8.values()]
    assert sum(integer for integer, _ in counts) >= 0.95 * sum(total for _, total in counts)


def test_int4_integers_and_groups_are_those_of_the_spec(int4):
    spec, paths = int4
    found = {layer.name: layer for path in paths.values() for layer in read_integers(path)}
    grouped = [name for name in found if spec.layers[name].group]
    assert len(grouped) > 10
    for name, layer in found.items():
        assert layer.inputs is None
        np.testing.assert_array_equal(layer.integers, spec.tensors[f"{name}.weight"].numpy(), err_msg=name)
        np.testing.assert_array_equal(layer.scale, spec.tensors[f"{name}.weight_scale"].numpy(), err_msg=name)
    wanted = {n for n in spec.layers if n.startswith("image_encoder.")}
    assert wanted
    assert wanted <= found.keys()


def test_int4_leaves_activations_float(exported, int4):
    """The difference to the same integers in torch is that of float32, not of int8 activations."""
    spec, paths = int4
    graph = next(g for g in graph_specs(spec.build(exported.model.config)) if g.name == "text_encoder.simple")
    runtime = open_runtime("openvino", paths[graph.name], "cpu", threads=1)
    inputs = inputs_of(runtime)
    with torch.no_grad():
        want = graph.module(torch.from_numpy(inputs["input_ids"])).numpy()
    assert runtime.settings.dynamic_quantization == 0
    np.testing.assert_allclose(runtime.run(inputs)["text_features"], want, atol=2e-5)


def test_a_changed_integer_is_found(quantized, int8, tmp_path):
    for suffix in (".xml", ".bin"):
        shutil.copyfile(int8["image_encoder"].with_suffix(suffix), tmp_path / f"image_encoder{suffix}")
    weight = max(
        (t for n, t in quantized.spec.integers.items() if n.startswith("image_encoder.")), key=torch.numel
    ).numpy()
    content = bytearray((tmp_path / "image_encoder.bin").read_bytes())
    place = content.find(weight.tobytes())
    assert place >= 0
    content[place] ^= 1
    (tmp_path / "image_encoder.bin").write_bytes(content)
    with pytest.raises(ExportError, match=r"image_encoder\.xml: 1 integers of image_encoder.* differ"):
        check_integers(quantized.spec, {"image_encoder": tmp_path / "image_encoder.xml"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("scale", "the scales of .* differ"),
        ("activations", "the activations of .* lie in"),
        ("missing", "quantized layers are in no graph"),
        ("float", "is quantized there and float in the spec"),
    ],
)
def test_other_differences_are_found(quantized, int8, change, message):
    spec, graphs = quantized.spec, dict(int8)
    name = next(name for name in spec.layers if name.startswith("text_encoder.layers."))
    layers, tensors = dict(spec.layers), dict(spec.tensors)
    if change == "scale":
        tensors[f"{name}.weight_scale"] = 2 * tensors[f"{name}.weight_scale"]
    elif change == "activations":
        layers[name] = layers[name].model_copy(update={"input_scale": 2 * layers[name].input_scale})
    elif change == "missing":
        del graphs["detector"]
    else:
        del layers[name]
    with pytest.raises(ExportError, match=message):
        check_integers(dataclasses.replace(spec, layers=layers, tensors=tensors), graphs)


@pytest.fixture
def gate(exported, tokenizer):
    config = exported.model.config

    def made(folder: Path) -> Gate:
        return Gate(
            folder / "weights", config, 0, tokenizer, Preprocessing(image_size=config.image_size), 0.5, 0,
            model_pairs(12, config), lambda *_: None, folder / "worst-pair.png",
        )  # fmt: skip

    return made


@pytest.fixture
def copied(monkeypatch):
    """ONNX graphs that are copied instead of traced anew."""

    def install(graphs: dict[str, Path]) -> None:
        def export_onnx(source, config, folder, boxes, **options):
            shutil.copytree(next(iter(graphs.values())).parent, folder, dirs_exist_ok=True)
            return {graph: path.name for graph, path in graphs.items()}

        monkeypatch.setattr(openvino_ir, "export_onnx", export_onnx)

    return install


def test_a_float_variant_passes_the_gate_and_is_self_contained(exported, onnx, gate, copied, tmp_path):
    copied(onnx)
    shutil.copytree(exported.run / "weights", tmp_path / "weights")
    written, _, agreement = write_variant(tmp_path, gate(tmp_path), "openvino", "fp32")
    assert written == "openvino-fp32"
    assert agreement.min_iou > 0.999
    names = {path.name for path in (tmp_path / written).iterdir()}
    assert names == {f"{graph}{suffix}" for graph in onnx for suffix in (".xml", ".bin")}


def test_a_quantized_variant_is_checked_and_named_by_what_runs(
    quantized, gate, copied, tmp_path, monkeypatch
):
    copied(dict(quantized.bundle.graphs("onnx-int8")))
    for part in ("weights", "quant"):
        shutil.copytree(quantized.bundle.root / part, tmp_path / part)
    anything = Limits(same_count=0, mean_iou=0, min_iou=0, score=None, box_px=None)
    monkeypatch.setitem(LIMITS, "mixed", anything)
    monkeypatch.setattr(targets, "INTEGER_SHARE", 1.01)
    file = tmp_path / "quant" / "int8.safetensors"
    name, variant, _ = write_variant(tmp_path, gate(tmp_path), "openvino", "int8", file)
    assert name == "openvino-mixed"
    assert (variant.runtime, variant.precision, variant.quant_spec) == (
        "openvino", "mixed", "quant/int8.safetensors",
    )  # fmt: skip
    assert variant.agreement["equal_layers"] == len(quantized.spec.layers)
    assert variant.versions["openvino"]
    assert all((tmp_path / path).is_file() for path in variant.graphs.values())


def test_the_onnx_graphs_of_the_bundle_are_converted_as_they_are(quantized, gate, tmp_path, monkeypatch):
    def export_onnx(*arguments, **options):
        raise AssertionError("exported again")

    monkeypatch.setattr(openvino_ir, "export_onnx", export_onnx)
    monkeypatch.setitem(LIMITS, "int8", Limits(same_count=0, mean_iou=0, min_iou=0, score=None, box_px=None))
    shutil.copytree(quantized.bundle.root, tmp_path, dirs_exist_ok=True)
    quant = tmp_path / "quant"
    name, made, _ = write_variant(tmp_path, gate(tmp_path), "openvino", "int8", quant / "int8.safetensors")
    assert name == "openvino-int8"
    assert made.agreement["equal_layers"] == len(quantized.spec.layers)
    with pytest.raises(AssertionError, match="exported again"):
        write_variant(tmp_path, gate(tmp_path), "openvino", "int4", quant / "int4.safetensors")


def test_a_bundle_whose_ir_was_edited_by_hand_is_refused(onnx, exported, tmp_path):
    with new_bundle(tmp_path / "bundle", base=Bundle.open(exported.bundle)) as folder:
        place = folder.path / "openvino-fp32"
        place.mkdir()
        convert({"detector": onnx["detector"]}, place, "fp32")
        folder.finish(variants={})
    graph = tmp_path / "bundle" / "openvino-fp32" / "detector.xml"
    text = graph.read_text()
    Bundle.open(tmp_path / "bundle").verify()
    for edited, message in (
        (text.replace("f32", "f16", 1), "was changed, its sha256"),
        (text + " ", "bytes"),
    ):
        graph.write_text(edited)
        with pytest.raises(ArtifactError, match=rf"openvino-fp32/detector\.xml .*{message}"):
            Bundle.open(tmp_path / "bundle").verify()


def test_a_renamed_output_is_refused(onnx, tmp_path, monkeypatch):
    def rename(model, **options):
        model.output(0).set_names({"other"})

    monkeypatch.setattr(openvino_ir, "apply_moc_transformations", rename)
    with pytest.raises(ExportError, match=r"detector\.onnx: scores is called other in OpenVINO"):
        write_ir(onnx["detector"], tmp_path / "detector.xml", "fp32")
