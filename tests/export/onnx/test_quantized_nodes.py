from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from sam3i_edge.errors import ExportError
from sam3i_edge.export.onnx.census import Census, census
from sam3i_edge.export.onnx.graph_file import OPSET, write_graph
from sam3i_edge.export.onnx.onnx_variant import check_integers
from sam3i_edge.export.onnx.quantized_nodes import pack_nibbles, read_integers, rewrite, unpack_nibbles
from sam3i_edge.model.graph_specs import graph_specs

GRAPHS = ("image_encoder", "text_encoder.concept", "text_encoder.simple", "text_encoder.complex", "detector")
SHARED = "detector.decoder.ref_point_head.layers.0"  # runs in every decoder layer


@pytest.fixture(scope="session")
def paths(quantized) -> dict[str, Path]:
    return dict(quantized.bundle.graphs("onnx-int8"))


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def nodes(path: Path):
    return list(onnx.load(path, load_external_data=False).graph.node)


def graph_inputs(spec, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for name, example in spec.inputs.items():
        if name == "level":
            inputs[name] = torch.tensor([seed % 3])
        elif name == "input_ids":
            inputs[name] = torch.randint(0, 300, example.shape, generator=generator)
        elif name == "prompt_mask":
            inputs[name] = torch.arange(example.shape[1])[None] % 3 != 1
        else:
            inputs[name] = torch.randn(example.shape, generator=generator)
    return inputs


def both(module_spec, path: Path, seed: int):
    """What torch and ONNX Runtime give for the same random inputs, by output name."""
    inputs = graph_inputs(module_spec, seed)
    with torch.no_grad():
        want = module_spec.module(*inputs.values())
    want = want if isinstance(want, tuple) else (want,)
    options = onnxruntime.SessionOptions()
    # Where weights alone are of 8 bits ONNX Runtime would round activations too, to be faster.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    got = session.run(list(module_spec.outputs), {name: value.numpy() for name, value in inputs.items()})
    return {name: (a.numpy(), b) for name, a, b in zip(module_spec.outputs, want, got, strict=True)}


@pytest.mark.parametrize("graph", GRAPHS)
def test_integers_and_scales_are_the_specs(quantized, paths, graph):
    """Read with the onnx package, which knows nothing of ours."""
    stored, tensors, made = initializers(paths[graph]), quantized.spec.tensors, nodes(paths[graph])
    found = [name for name in quantized.spec.layers if f"{name}.weight" in stored]
    assert found
    for name in found:
        layer, weight = quantized.spec.layers[name], stored[f"{name}.weight"]
        assert weight.dtype == np.int8
        want, tiles = tensors[f"{name}.weight"].numpy(), 1
        if layer.kind == "linear":
            weight = weight.T  # lies as [K, N]
        elif layer.kind == "conv_transpose2d":  # as pointwise [N k k, K, 1, 1]
            weight = weight.reshape(*want.shape[1:], want.shape[0]).transpose(3, 0, 1, 2)
            tiles = want[0, 0].size
        np.testing.assert_array_equal(weight, want, err_msg=name)
        if layer.kind == "embedding":  # integers and scales are gathered by the same ids
            beside = [
                node.input[0] for node in made if node.op_type == "Gather" and node.input[1] == "input_ids"
            ]
            (scale,) = set(beside) - {f"{name}.weight"}
        else:
            (scale,) = {
                node.input[1]
                for node in made
                if node.op_type == "DequantizeLinear" and node.input[0] == f"{name}.weight"
            }
        want = tensors[f"{name}.weight_scale"].numpy().repeat(tiles)
        np.testing.assert_array_equal(stored[scale].reshape(want.shape), want, err_msg=name)


def test_every_layer_is_in_some_graph_and_reads_back(quantized, paths):
    assert check_integers(quantized.spec, paths) == len(quantized.spec.layers) > 50
    read = {name for path in paths.values() for name, _, _ in read_integers(ir.load(path))}
    assert read == set(quantized.spec.layers)


def test_the_optimised_graphs_run_in_integer_kernels(paths):
    counted = {graph: census(path) for graph, path in paths.items()}
    assert counted["image_encoder"].kernels["QLinearConv"] >= 10
    products = counted["text_encoder.simple"].kernels
    assert products.get("QGemm", 0) + products.get("MatMulIntegerToFloat", 0) >= 8
    assert counted["detector"].kernels["QLinearConv"] == 4  # the last is the transposed one
    total = sum(counted.values(), Census(0, 0, {}))
    assert total.share > 0.95
    for graph in ("image_encoder", "text_encoder.concept", "text_encoder.complex"):
        assert counted[graph].share > 0.99, graph


@pytest.mark.parametrize("graph", GRAPHS)
def test_activations_are_uint8_and_their_zero_points_and_scales_those_of_the_spec(quantized, paths, graph):
    stored = initializers(paths[graph])
    made = {output: node for node in nodes(paths[graph]) for output in node.output}
    quantize = [node for node in made.values() if node.op_type == "QuantizeLinear"]
    assert quantize
    for node in quantize:
        zero = stored[node.input[2]]
        assert zero.dtype == np.uint8
        assert not {a.name: a.i for a in node.attribute}.get("output_dtype")
    steps = {(stored[node.input[1]].item(), stored[node.input[2]].item()) for node in quantize}
    read = 0
    for node in made.values():
        if node.op_type == "DequantizeLinear" and node.input[0] in made:
            assert made[node.input[0]].op_type == "QuantizeLinear"
            assert list(node.input[1:]) == list(made[node.input[0]].input[1:])
            read += 1
    assert read >= len(quantize)
    wanted = {
        (np.float32(scale).item(), 128 + zero)
        for name, layer in quantized.spec.layers.items()
        if f"{name}.weight" in stored
        for scale, zero in (
            (layer.input_scale, layer.input_zero),
            (layer.output_scale, layer.output_zero),
        )
        if scale is not None
    }
    assert steps == wanted
    assert {zero for _, zero in steps} == ({0, 128} if graph == "image_encoder" else {128})


@pytest.mark.parametrize("graph", GRAPHS)
def test_biases_are_int32_steps(quantized, paths, graph):
    stored, tensors = initializers(paths[graph]), quantized.spec.tensors
    found = 0
    for name, layer in quantized.spec.layers.items():
        if f"{name}.weight" not in stored or f"{name}.bias" not in tensors:
            continue
        steps, scale = stored[f"{name}.bias_int32"], stored[f"{name}.bias_scale"]
        assert steps.dtype == np.int32
        want = (tensors[f"{name}.weight_scale"].double() * layer.input_scale).float().numpy()
        bias = tensors[f"{name}.bias"].numpy()
        tile = len(scale) // len(want)  # a transposed convolution has one for each cell of its tile
        assert tile == (4 if layer.kind == "conv_transpose2d" else 1)
        np.testing.assert_array_equal(scale, want.repeat(tile))
        np.testing.assert_allclose(steps * scale, bias.repeat(tile), rtol=1e-6, atol=0)
        assert f"{name}.bias" not in stored  # no float bias is left
        found += 1
    assert found


def test_a_layer_that_runs_twice_has_one_bias(paths):
    dequantized = [n for n in nodes(paths["detector"]) if n.name == f"{SHARED}.bias_dequantize"]
    assert len(dequantized) == 1
    readers = [n for n in nodes(paths["detector"]) if dequantized[0].output[0] in n.input]
    assert len(readers) == 2


def test_files_are_of_the_opset_that_runtimes_read(paths, four_bits):
    for path in (*paths.values(), *four_bits[1].values()):
        opsets = {o.domain: o.version for o in onnx.load(path, load_external_data=False).opset_import}
        assert opsets[""] == OPSET
        assert 18 <= OPSET <= 20
    assert opsets["com.microsoft"] == 1


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_files_compute_what_the_quantized_model_does(exported, quantized, paths, graph, seed):
    """Sums in another order move a value across a step now and then: a few differ by one."""
    built = quantized.spec.build(exported.model.config)
    spec = next(s for s in graph_specs(built) if s.name == graph)
    plain = next(s for s in graph_specs(exported.model) if s.name == graph)
    for name, (want, got) in both(spec, paths[graph], seed).items():
        size = max(float(np.abs(want).max()), 1e-3)
        away = np.abs(want - got)
        assert float(away.mean()) < 5e-3 * size, name
        assert float(np.quantile(away, 0.99)) < 0.02 * size, name
    # The float model is further from it: agreement is no accident of a loose limit.
    float_first = both(plain, paths[graph], seed)[spec.outputs[0]]
    first = both(spec, paths[graph], seed)[spec.outputs[0]]
    assert np.abs(np.subtract(*first)).mean() < 0.5 * np.abs(np.subtract(*float_first)).mean()


@pytest.mark.parametrize(
    ("name", "file", "output"),
    [
        ("text_encoder.layers.0.attn.o_proj", "text_encoder.concept", "text_features"),
        ("image_encoder.neck.0", "image_encoder", "fpn_4x"),
    ],
)
def test_a_layer_whose_bias_is_zero_still_runs_in_integers(
    exported, quantized, paths, tmp_path, name, file, output
):
    zeros = torch.zeros_like(quantized.spec.tensors[f"{name}.bias"])
    without = replace(quantized.spec, tensors=quantized.spec.tensors | {f"{name}.bias": zeros})
    graph = next(g for g in graph_specs(without.build(exported.model.config)) if g.name == file)
    write_graph(graph, tmp_path, {}, quantized=without)
    path = tmp_path / f"{file}.onnx"
    assert not initializers(path)[f"{name}.bias_int32"].any()
    assert census(path).kernels == census(paths[file]).kernels
    want, got = both(graph, path, 0)[output]
    assert np.abs(want - got).mean() < 5e-3 * np.abs(want).max()
    assert name in {layer for layer, _, _ in read_integers(ir.load(path))}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("graph", ["text_encoder.simple", "detector"])
def test_four_bits_compute_what_the_quantized_model_does(exported, four_bits, graph, seed):
    spec, files = four_bits
    module = next(s for s in graph_specs(spec.build(exported.model.config)) if s.name == graph)
    for name, (want, got) in both(module, files[graph], seed).items():
        size = max(float(np.abs(want).max()), 1.0)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * size, err_msg=name)


def test_four_bits_are_matmulnbits_with_the_specs_integers(four_bits):
    spec, files = four_bits
    found = 0
    for graph, path in files.items():
        stored = initializers(path)
        products = [node for node in nodes(path) if node.op_type == "MatMulNBits"]
        assert products
        for node in products:
            attributes = {a.name: a.i for a in node.attribute}
            name = node.input[1].removesuffix(".weight_int4")
            rows, columns = spec.tensors[f"{name}.weight"].shape
            want = {"K": columns, "N": rows, "bits": 4, "block_size": 32}
            assert {key: attributes[key] for key in want} == want
            packed = stored[node.input[1]]
            assert (packed.dtype, packed.shape) == (np.uint8, (rows, columns // 32, 16))
            flat = packed.reshape(rows, -1)
            nibbles = np.stack((flat & 15, flat >> 4), -1).reshape(rows, -1).astype(np.int8) - 8
            np.testing.assert_array_equal(nibbles, spec.tensors[f"{name}.weight"].numpy(), err_msg=name)
            np.testing.assert_array_equal(
                stored[node.input[2]].reshape(rows, -1), spec.tensors[f"{name}.weight_scale"].numpy()
            )
            found += 1
        # ONNX Runtime makes more of them, of layers whose weights have 8 bits.
        assert census(path).kernels["MatMulNBits"] >= len(products), graph
        assert not [node for node in nodes(path) if node.op_type == "QuantizeLinear"]
        read = {name for name, _, _ in read_integers(ir.load(path))}
        prefix = graph.split(".")[0]
        missing = {name for name in spec.layers if name.startswith(prefix)} - read
        assert all(".bridge." in name or ".complex." in name for name in missing)
    assert found >= 20


def test_nibbles_pack_and_unpack():
    weight = np.random.default_rng(0).integers(-8, 8, (3, 64)).astype(np.int8)
    packed = pack_nibbles(weight)
    low, high = int(weight[0, 0]) + 8, int(weight[0, 1]) + 8
    assert packed[0, 0] == low + 16 * high
    np.testing.assert_array_equal(unpack_nibbles(packed), weight)


def damaged(paths, folder: Path, graph: str, change) -> dict[str, Path]:
    """Copies of the files, one of them changed by `change(initializers)`."""
    place = shutil.copytree(paths[graph].parent, folder / "damaged")
    model = ir.load(place / paths[graph].name)
    change(model.graph.initializers)
    ir.save(model, place / paths[graph].name)
    return {name: place / path.name for name, path in paths.items()}


def put(values, name: str, array: np.ndarray) -> None:
    values[name].const_value = ir.tensor(array, name=name)


@pytest.mark.parametrize("name", ["detector.decoder.layers.1.mlp.fc1", "detector.mask_decoder.instance_proj"])
def test_one_flipped_integer_is_found(quantized, paths, tmp_path, name):
    def flip(values):
        array = values[f"{name}.weight"].const_value.numpy().copy()
        array.flat[7] ^= 1
        put(values, f"{name}.weight", array)

    files = damaged(paths, tmp_path, "detector", flip)
    with pytest.raises(ExportError, match=f"detector.onnx: 1 integers of {name} differ"):
        check_integers(quantized.spec, files)


def test_one_flipped_nibble_is_found(four_bits, tmp_path):
    spec, files = four_bits
    name = next(n for n, x in spec.layers.items() if x.group and n.startswith("detector."))

    def flip(values):
        array = values[f"{name}.weight_int4"].const_value.numpy().copy()
        array.flat[0] ^= 16
        put(values, f"{name}.weight_int4", array)

    changed = damaged(files, tmp_path, "detector", flip)
    with pytest.raises(ExportError, match=f"detector.onnx: 1 integers of {name} differ"):
        check_integers(spec, changed)


def test_a_changed_scale_is_found(quantized, paths, tmp_path):
    name = "image_encoder.stem.0"

    made = [n for n in nodes(paths["image_encoder"]) if n.op_type == "DequantizeLinear"]
    (scale,) = [node.input[1] for node in made if node.input[0] == f"{name}.weight"]

    def change(values):
        array = values[scale].const_value.numpy().copy()
        array[3] *= 2
        put(values, scale, array)

    files = damaged(paths, tmp_path, "image_encoder", change)
    with pytest.raises(ExportError, match=f"image_encoder.onnx: the scales of {name} differ"):
        check_integers(quantized.spec, files)


def test_a_layer_in_no_graph_is_named(quantized, paths):
    without = {name: path for name, path in paths.items() if name != "text_encoder.complex"}
    with pytest.raises(ExportError, match=r"quantized layers are in no graph, the first is .*\.bridge\."):
        check_integers(quantized.spec, without)


def test_a_graph_of_another_form_is_refused(quantized, paths):
    """One that was rewritten already has no Transpose behind its weights."""
    with pytest.raises(ExportError, match=r"text_encoder\..*: want a Transpose behind its weight, found "):
        rewrite(ir.load(paths["text_encoder.simple"]), quantized.spec)
