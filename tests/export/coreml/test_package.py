from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.errors import ExportError
from sam3i_edge.export.coreml import package as mlpackage
from sam3i_edge.export.coreml.coreml_variant import check_integers
from sam3i_edge.export.coreml.mil_reference import MilProgram, QuantizedWeight
from sam3i_edge.export.coreml.mil_trace import trace
from sam3i_edge.export.coreml.package import PackageOptions, export_mlpackage, file_name, write_package
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.graph_specs import GraphSpec, graph_specs
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.pipeline.preprocess import to_pixel_values
from sam3i_edge.quantize.modules import QuantizedLayer
from sam3i_edge.quantize.spec import Layer, QuantSpec

GRAPHS = ("image_encoder", "text_encoder.concept", "text_encoder.simple", "text_encoder.complex", "detector")


def _spec(model, graph, boxes=0):
    return next(spec for spec in graph_specs(model, boxes) if spec.name == graph)


def _inputs(spec):
    generator = torch.Generator().manual_seed(1)
    inputs = {}
    for name, example in spec.inputs.items():
        if name == "level":
            inputs[name] = torch.tensor([2])
        elif name == "input_ids":
            inputs[name] = torch.randint(0, 300, example.shape, generator=generator)
        elif name == "labels":
            inputs[name] = torch.tensor([[1, 0, -1]])
        elif name == "boxes":
            inputs[name] = torch.rand(example.shape, generator=generator) * 0.3 + 0.3
        elif name == "prompt_mask":
            inputs[name] = torch.arange(example.shape[1])[None] % 3 != 1
        else:
            inputs[name] = torch.randn(example.shape, generator=generator)
    return inputs


def _run_both(spec, package):
    inputs = _inputs(spec)
    with torch.no_grad():
        want = spec.module(*inputs.values())
    want = want if isinstance(want, tuple) else (want,)
    got = MilProgram(package).run({name: value.numpy() for name, value in inputs.items()})
    return {name: (got[name], value.numpy()) for name, value in zip(spec.outputs, want, strict=True)}


@pytest.mark.parametrize("graph", ["image_encoder", "text_encoder.complex", "box_encoder", "detector"])
def test_float32_package_equals_the_model(exported, tmp_path, graph):
    spec = _spec(exported.model, graph, boxes=3)
    package = write_package(spec, tmp_path, PackageOptions(precision="fp32"))
    for name, (got, want) in _run_both(spec, package).items():
        assert got.dtype == want.dtype
        scale = max(float(np.abs(want).max()), 1.0)
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * scale, err_msg=name)


def test_vit_and_its_pyramid_convert(tmp_path):
    config = ModelConfig(
        image_size=112, patch_size=14, pretrain_image_size=56, window_size=4, vit_width=32, vit_depth=2,
        vit_heads=2, vit_mlp_dim=48, vit_global_blocks=(1,), text_width=32, text_layers=1, text_heads=4,
        text_mlp_dim=64, vocab_size=300, d_model=32, n_heads=4, ffn_dim=64, encoder_layers=1,
        decoder_layers=1, num_queries=9, geometry_layers=1, roi_size=3, adapter_dim=0,
    )  # fmt: skip
    torch.manual_seed(0)
    spec = _spec(SAM3I(config).eval(), "image_encoder")
    package = write_package(spec, tmp_path, PackageOptions(precision="fp32"))
    program = MilProgram(package)
    assert program.census()["conv_transpose"] == 3
    for name, (got, want) in _run_both(spec, package).items():
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * float(np.abs(want).max()), err_msg=name)


@pytest.mark.parametrize("graph", GRAPHS)
def test_names_types_and_texts_that_xcode_shows(exported, packages, graph):
    import coremltools as ct

    spec = _spec(exported.model, graph)
    written = ct.models.utils.load_spec(str(packages / file_name(graph)))
    assert written.specificationVersion == 8  # iOS 17
    about = written.description
    assert [port.name for port in about.input] == list(spec.inputs)
    assert sorted(port.name for port in about.output) == sorted(spec.outputs)
    kinds = ct.proto.FeatureTypes_pb2.ArrayFeatureType
    for port in [*about.input, *about.output]:
        assert port.shortDescription
        integer = port.name in ("input_ids", "prompt_mask", "level")
        half = port.name.startswith("fpn_")
        wanted = kinds.INT32 if integer else kinds.FLOAT16 if half else kinds.FLOAT32
        assert port.type.multiArrayType.dataType == wanted, port.name
    assert about.metadata.shortDescription.startswith(f"tiny {graph}, fp16.")
    assert (about.metadata.author, about.metadata.license) == ("somebody", "terms")


def test_shapes_are_static_and_have_at_most_five_dimensions(packages):
    for graph in GRAPHS:
        for name, shape in MilProgram(packages / file_name(graph)).shapes():
            assert len(shape) <= 5, name
            assert all(isinstance(size, int) for size in shape), name


def test_softmax_group_norm_and_boxes_stay_float32(packages):
    found = MilProgram(packages / file_name("detector")).kinds_by_type()
    assert found["fp16"].keys().isdisjoint({"softmax", "reduce_mean", "square", "sqrt"})
    assert found["fp16"].keys().isdisjoint({"sin", "cos", "log", "sign", "topk"})
    assert found["fp16"].keys() >= {"linear", "matmul", "layer_norm"}
    assert not found["fp32"].keys() & {"linear", "matmul", "conv", "layer_norm"}
    # Two GroupNorms, each: two means, x - mean, its square, + eps, the root, and the division.
    norm = {"reduce_mean": 4, "sub": 2, "square": 2, "add": 2, "sqrt": 2, "real_div": 2}
    assert all(found["fp32"][kind] >= count for kind, count in norm.items())
    text = MilProgram(packages / file_name("text_encoder.simple")).kinds_by_type()
    assert text["fp32"].keys() == {"softmax", "cast"}


def test_softmax_can_be_float16_for_the_neural_engine(exported, tmp_path):
    spec = _spec(exported.model, "text_encoder.simple")
    program = MilProgram(write_package(spec, tmp_path, PackageOptions(float32_ops=frozenset())))
    assert program.kinds_by_type()["fp16"]["softmax"] > 0
    assert "softmax" not in program.kinds_by_type()["fp32"]


def test_boxes_can_be_float16_for_the_neural_engine():
    op = SimpleNamespace(op_type="sin", inputs={})
    assert not mlpackage._is_half(op, PackageOptions(), lambda _: True)
    assert mlpackage._is_half(op, PackageOptions(), lambda _: False)
    assert mlpackage._is_half(op, PackageOptions(float32_ops=frozenset()), lambda _: True)


def test_no_path_of_the_exporting_machine_is_left(packages):
    files = [path for path in packages.rglob("*") if path.is_file()]
    assert len(files) >= 3 * len(GRAPHS)
    for path in files:
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert b"/export/" not in content


def test_a_pixel_buffer_gives_what_pixel_values_give(exported, packages, tmp_path):
    spec = _spec(exported.model, "image_encoder")
    prep = Preprocessing(image_size=64, mean=(0.5, 0.4, 0.3), std=(0.5, 0.5, 0.5))
    package = write_package(spec, tmp_path, PackageOptions(image=prep))
    program = MilProgram(package)
    assert list(program.inputs) == ["image"]
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    values = to_pixel_values(picture, 64, prep.mean, prep.std)
    got = program.run({"pixel_values": values})
    want = MilProgram(packages / file_name("image_encoder")).run({"pixel_values": values})
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=4e-3 * np.abs(value).max(), err_msg=name)
    with pytest.raises(ValueError, match="whole grey levels"):
        program.run({"pixel_values": values + np.float32(0.001)})


def test_deviations_that_differ_cannot_go_into_a_pixel_buffer():
    with pytest.raises(ValueError, match="a pixel buffer is scaled by one number"):
        PackageOptions(image=Preprocessing(image_size=64, std=(0.5, 0.5, 0.4)))


def test_unknown_precision_is_refused():
    with pytest.raises(
        ValueError, match="precision must be one of fp32, fp16, int8, int8w, int4, got 'int2'"
    ):
        PackageOptions(precision="int2")


def _size(package):
    return sum(path.stat().st_size for path in package.rglob("*") if path.is_file())


def _scales(*shape):
    return (torch.rand(*shape) * 0.02 + 0.01).half().float()


def _integers(*shape, bits=8):
    low, high = (-127, 128) if bits == 8 else (-8, 8)
    return torch.randint(low, high, shape, dtype=torch.int8)


class _Quantized(nn.Module):
    """Every kind of quantized layer, a shared input, a residual of two quantized branches, a constant."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        static = precision == "int8"

        def scale(value: float) -> float | None:
            return value if static else None

        same = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1}
        twice = {"stride": 2, "padding": 0, "dilation": 1, "groups": 1}
        self.conv = QuantizedLayer(
            "conv2d", _integers(8, 3, 3, 3), _scales(8), torch.randn(8), scale(0.03125), scale(0.5), same
        )
        if static:  # read through ReLU
            self.conv.output_zero = -128
        self.up = QuantizedLayer(
            "conv_transpose2d",
            _integers(8, 4, 2, 2),
            _scales(4),
            torch.randn(4),
            scale(0.5),
            scale(0.75),
            twice,
            -128 if static else 0,
        )
        self.branch = QuantizedLayer(
            "conv2d", _integers(4, 4, 3, 3), _scales(4), None, scale(0.375), scale(0.625), same
        )
        bits = 4 if precision == "int4" else 8
        self.linear = QuantizedLayer(
            "linear",
            _integers(16, 64, bits=bits),
            _scales(16, 2) if bits == 4 else _scales(16),
            torch.randn(16),
            scale(0.125),
        )
        self.one = QuantizedLayer("linear", _integers(1, 16), _scales(1), torch.randn(1), scale(0.0625))
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.constant = QuantizedLayer("linear", _integers(16, 16), _scales(16), None, scale(0.015625))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.up(torch.relu(self.conv(x)))
        x = torch.relu(x + self.branch(x))
        x = self.linear(x.flatten(1).view(1, -1, 64))
        return x, self.one(x + self.constant(self.token))

    def layers(self):
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, QuantizedLayer)}


def _quantized_spec(precision):
    module = _Quantized(precision).eval()
    return GraphSpec("toy", module, {"x": torch.zeros(1, 3, 8, 8)}, ("y", "z"))


@pytest.mark.parametrize(
    ("precision", "version", "operator"),
    [
        ("int8", 8, "constexpr_affine_dequantize"),
        ("int8w", 8, "constexpr_affine_dequantize"),
        ("int4", 9, "constexpr_blockwise_shift_scale"),
    ],
)
def test_a_package_holds_exactly_the_models_integers(tmp_path, precision, version, operator):
    import coremltools as ct

    spec = _quantized_spec(precision)
    layers = spec.module.layers()
    program = MilProgram(write_package(spec, tmp_path, PackageOptions(precision=precision)))
    assert ct.models.utils.load_spec(str(tmp_path / "Toy.mlpackage")).specificationVersion == version
    assert operator in program.census()
    found = {weight.key() for weight in program.quantized_weights()}
    for name, layer in layers.items():
        scales = layer.weight_scale.numpy()
        if not layer.grouped:
            axis = 1 if layer.kind == "conv_transpose2d" else 0
            scales = scales.reshape([-1 if i == axis else 1 for i in range(layer.weight.ndim)])
        assert QuantizedWeight("", layer.weight.numpy(), scales).key() in found, name
    assert len(found) == len(layers) + (precision == "int8")  # the constant's input is one more
    if precision == "int8":
        # 0.015625 is the step of the constant, which is stored in it.
        signed = {(scale, 128) for scale in (0.03125, 0.75, 0.375, 0.625, 0.125, 0.0625)}
        assert program.activation_steps() == {(0.5, 0)} | signed
        assert program.census()["dequantize"] == program.census()["quantize"] >= 7
    else:
        assert "quantize" not in program.census()
    # The model that was exported is as it was.
    assert spec.module.layers() == layers

    x = torch.randn(1, 3, 8, 8) * 0.5
    with torch.no_grad():
        wanted = spec.module(x)
    got = program.run({"x": x.numpy()})
    for name, want in zip(spec.outputs, wanted, strict=True):
        # float16 sums move some activations by one of their steps.
        error = np.abs(got[name] - want.numpy())
        assert np.median(error) < 0.004 * float(want.abs().max()), name


def test_a_flipped_byte_in_the_integers_is_found(tmp_path):
    spec = _quantized_spec("int8")
    package = write_package(spec, tmp_path, PackageOptions(precision="int8"))
    program = trace(spec)
    mlpackage._check(package, spec, program)
    weights = package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    content = bytearray(weights.read_bytes())
    place = content.index(spec.module.linear.weight.numpy().tobytes())
    content[place] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ExportError, match="lacks the integers or scales of 1 of 6 quantized weights"):
        mlpackage._check(package, spec, program)


def test_export_writes_every_graph_and_says_so(exported, packages):
    assert sorted(path.name for path in packages.iterdir()) == sorted(map(file_name, GRAPHS))


def test_quantized_models_are_exported_from_their_file(exported, tmp_path, monkeypatch):
    tensors = dict(exported.model.state_dict())
    name, integers = "text_encoder.projection", _integers(32, 32)
    tensors |= {f"{name}.weight": integers, f"{name}.weight_scale": _scales(32)}
    layers = {name: Layer(kind="linear", bits=8, input_scale=0.0625)}
    table = "text_encoder.token_embedding"
    rows = _integers(*tensors[f"{table}.weight"].shape)
    tensors |= {f"{table}.weight": rows, f"{table}.weight_scale": _scales(len(rows))}
    layers[table] = Layer(kind="embedding", bits=8)
    QuantSpec("int8", layers, tensors).save(tmp_path / "int8.safetensors")
    monkeypatch.setattr(mlpackage, "graph_names", lambda *_: ["text_encoder.concept"])
    told = []
    files = export_mlpackage(
        exported.run / "weights",
        exported.model.config,
        tmp_path,
        PackageOptions(precision="int8"),
        quantized=tmp_path / "int8.safetensors",
        progress=lambda *said: told.append(said),
    )
    assert files == {"text_encoder.concept": "TextEncoderConcept.mlpackage"}
    assert told == [("converting text_encoder.concept for Core ML", done) for done in (0.0, 1.0)]
    program = MilProgram(tmp_path / files["text_encoder.concept"])
    weights = {weight.integers.shape: weight.integers for weight in program.quantized_weights()}
    np.testing.assert_array_equal(weights.pop((32, 32)), integers.numpy())
    np.testing.assert_array_equal(weights.pop(tuple(rows.shape)), rows.numpy())
    assert not weights
    spec = QuantSpec.load(tmp_path / "int8.safetensors")
    packages = {graph: tmp_path / file for graph, file in files.items()}
    assert check_integers(spec, packages) == 2
    (graph,) = (g for g in graph_specs(spec.build(exported.model.config)) if g.name == "text_encoder.concept")
    ids = {"input_ids": np.arange(32)[None] * 7 % len(rows)}
    got, want = (run(ids)["text_features"] for run in (program.run, graph.run))
    # float16 sums move some activations by one of their steps.
    assert np.median(np.abs(got - want)) < 0.004 * np.abs(want).max()
    for part in ("weight", "weight_scale"):
        other = {**spec.tensors, f"{name}.{part}": 2 * spec.tensors[f"{name}.{part}"].clamp(-60, 60)}
        with pytest.raises(ExportError, match=f"1 quantized layers are in no package.* is {name}"):
            check_integers(QuantSpec("int8", spec.layers, other), packages)
