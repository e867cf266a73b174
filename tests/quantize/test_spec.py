from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import sam3i_edge
from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.graph_specs import graph_specs
from sam3i_edge.quantize.modules import QuantizedLayer
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.quantize.spec import Layer, QuantSpec, open_model

LINEAR = "text_encoder.layers.0.mlp.fc2"
CONV = "image_encoder.stem.0"


@pytest.mark.parametrize("recipe", RECIPES)
def test_round_trip(tmp_path, spec, recipe):
    want = spec(recipe)
    want.save(tmp_path / "model.safetensors")
    got = QuantSpec.load(tmp_path / "model.safetensors")
    assert (got.recipe, dict(got.layers)) == (recipe, dict(want.layers))
    assert got.notes == want.notes
    assert got.tensors.keys() == want.tensors.keys()
    for name, value in want.tensors.items():
        assert got.tensors[name].dtype == value.dtype, name
        assert torch.equal(got.tensors[name], value), name
    assert {v.dtype for v in got.integers.values()} == {torch.int8}


def test_every_recipe_stores_what_it_says(spec):
    for layer in spec("int8").layers.values():
        assert (layer.bits, layer.group) == (8, 0)
        assert (layer.input_scale is not None) == (layer.kind != "embedding")
        assert (layer.output_scale is not None) == (layer.kind not in ("linear", "embedding"))
    for recipe in ("int8w", "int4"):
        assert all(x.input_scale is x.output_scale is None for x in spec(recipe).layers.values())
    assert {(x.bits, x.group) for x in spec("int4").layers.values()} == {(8, 0), (4, 32)}
    four = spec("int4").tensors[f"{LINEAR}.weight"]
    assert int(four.min()) >= -8
    assert int(four.max()) <= 7
    assert spec("int4").tensors[f"{LINEAR}.weight_scale"].shape == (16, 1)


def test_build_is_the_maths_of_the_layers(spec, config, model):
    built = spec("int8").build(config)
    names = {name for name, module in built.named_modules() if isinstance(module, QuantizedLayer)}
    assert names == spec("int8").layers.keys()
    assert not [m for m in built.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not [name for name, value in built.state_dict().items() if value.is_meta]
    layer, tensors = spec("int8").layers[LINEAR], spec("int8").tensors
    x = torch.randn(3, 32)
    steps = (x / layer.input_scale).round().clamp(-128, 127) * layer.input_scale
    weight = tensors[f"{LINEAR}.weight"].float() * tensors[f"{LINEAR}.weight_scale"][:, None]
    want = steps @ weight.T + tensors[f"{LINEAR}.bias"]
    torch.testing.assert_close(built.get_submodule(LINEAR)(x), want)
    # Over the spec's own memory.
    assert built.get_submodule(LINEAR).weight.data_ptr() == tensors[f"{LINEAR}.weight"].data_ptr()
    # As putting the layers into the float model, whose batch norms go.
    other = spec("int8").put_into(model)
    pixels = torch.randn(1, 3, 64, 64)
    for one, two in zip(built.image_encoder(pixels), other.image_encoder(pixels), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("graph", ["image_encoder", "text_encoder.simple", "detector"])
def test_one_graph_holds_its_own_tensors_alone(tmp_path, spec, config, graph):
    path = tmp_path / "model.safetensors"
    spec("int8").save(path)
    part = QuantSpec.load(path, graph)
    prefixes = {
        "image_encoder": {"image_encoder", "geometry_encoder"},
        "text_encoder.simple": {"text_encoder"},
        "detector": {"detector"},
    }[graph]
    assert {name.split(".")[0] for name in part.tensors} == prefixes
    assert {name.split(".")[0] for name in part.layers} == prefixes
    whole, alone = spec("int8").build(config), open_model(path, config, graph)
    missing = {name.split(".")[0] for name, value in alone.state_dict().items() if value.is_meta}
    assert not missing & prefixes
    one, two = (next(s for s in graph_specs(m) if s.name == graph) for m in (whole, alone))
    inputs = [torch.randn_like(v) if v.is_floating_point() else v for v in one.inputs.values()]
    found, want = two.module(*inputs), one.module(*inputs)
    found, want = (value if isinstance(value, tuple) else (value,) for value in (found, want))
    # Products of mapped memory, which lies otherwise, may end in other bits, and those in another step.
    for a, b in zip(found, want, strict=True):
        assert float((a - b).abs().mean()) <= 2e-3 * float(b.abs().max())


def test_it_loads_and_runs_without_torchao(tmp_path, spec, config):
    path = tmp_path / "model.safetensors"
    spec("int8").save(path)
    (tmp_path / "model.config.json").write_text(json.dumps(config.to_dict()))
    script = textwrap.dedent("""
        import json, sys
        sys.modules["torchao"] = None  # importing it raises
        from pathlib import Path
        import torch
        from sam3i_edge.model.config import ModelConfig
        from sam3i_edge.quantize.spec import QuantSpec

        path = Path(sys.argv[1])
        config = ModelConfig.from_dict(json.loads(path.with_suffix(".config.json").read_text()))
        model = QuantSpec.load(path).build(config)
        torch.manual_seed(0)
        print(float(model.image_encoder(torch.randn(1, 3, 64, 64))[2].abs().sum()))
    """)
    root = Path(sam3i_edge.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    want = spec("int8").build(config).image_encoder(torch.randn(1, 3, 64, 64))[2].abs().sum()
    assert float(done.stdout) == pytest.approx(float(want), rel=0.01)  # a step here and there


@pytest.fixture
def saved(tmp_path, spec) -> Path:
    path = tmp_path / "model.safetensors"
    spec("int8").save(path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:100], "model.json is no quantized model"),
        (lambda text: "[]", "model.json is no quantized model"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "format"),
        (lambda text: text.replace('"bits": 8', '"bits": 5', 1), "bits"),
        (lambda text: text.replace('"kind": "linear"', '"kind": "matmul"', 1), "kind"),
        (
            lambda text: text.replace('"kind": "linear"', '"kind": "embedding"', 1),
            "a table with a bias or static",
        ),
        (lambda text: text.replace('"recipe"', '"recipes"'), "recipe"),
    ],
    ids=["cut", "list", "version", "bits", "kind", "table", "field"],
)
def test_a_damaged_description_is_named(saved, change, message):
    file = saved.with_suffix(".json")
    changed = change(file.read_text())
    assert changed != file.read_text()
    file.write_text(changed)
    with pytest.raises(ArtifactError, match=message):
        QuantSpec.load(saved)


def test_missing_and_damaged_files_are_named(saved, tmp_path):
    content = saved.read_bytes()
    for damage in (content[:-100], content[:20], b"", b"\xff" * 100):
        saved.write_bytes(damage)
        with pytest.raises(ArtifactError, match=r"cannot read the quantized model .*model\.safetensors"):
            QuantSpec.load(saved)
    saved.unlink()
    with pytest.raises(ArtifactError, match="cannot read the quantized model"):
        QuantSpec.load(saved)
    saved.with_suffix(".json").unlink()
    with pytest.raises(ArtifactError, match=r"cannot read the quantized model .*No such file"):
        QuantSpec.load(saved)


SCALE, WEIGHT, BIAS = f"{LINEAR}.weight_scale", f"{LINEAR}.weight", f"{LINEAR}.bias"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (WEIGHT, lambda v: v.float(), "lacks int8 weights or their scales"),
        (WEIGHT, lambda v: v.to(torch.int32), "lacks int8 weights or their scales"),
        (WEIGHT, lambda v: v.flatten(), r"is a linear with weights of shape \(512,\)"),
        (WEIGHT, lambda v: v[:0], r"is a linear with weights of shape \(0, 32\)"),
        (WEIGHT, lambda v: v.fill_(-128), "integers outside those of 8 bits"),
        (WEIGHT, None, "lacks int8 weights or their scales"),
        (SCALE, None, "lacks int8 weights or their scales"),
        (SCALE, lambda v: v[:-1].clone(), r"scales of torch.float32 \(15,\), want torch.float32 \(16,\)"),
        (SCALE, lambda v: v[:, None].clone(), r"scales of torch.float32 \(16, 1\)"),
        (SCALE, lambda v: v.half(), r"scales of torch.float16 \(16,\)"),
        (SCALE, lambda v: v * 1.0001, "a scale that float16 does not hold exactly"),
        (SCALE, lambda v: torch.full_like(v, 2.0**-15), "or below 2\\^-14"),
        (SCALE, lambda v: -v, "or below 2\\^-14"),
        (SCALE, lambda v: torch.full_like(v, float("nan")), "float16 does not hold exactly"),
        (SCALE, lambda v: torch.full_like(v, float("inf")), "float16 does not hold exactly"),
        (BIAS, lambda v: v[:3].clone(), r"a bias of torch.float32 \(3,\), want torch.float32 \(16,\)"),
        (BIAS, lambda v: torch.full_like(v, 1e30), "an int32 takes up to 2\\^30"),
        (BIAS, lambda v: torch.full_like(v, float("nan")), "an int32 takes up to 2\\^30"),
    ],
)
def test_tensors_that_break_the_format_are_refused_by_layer(saved, name, change, message):
    tensors = load_file(saved)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name])
    save_file(tensors, saved)
    with pytest.raises(ArtifactError, match=f"layer {LINEAR} .*{message}"):
        QuantSpec.load(saved)


@pytest.mark.parametrize("scale", [0.0, -1.0, 0.1, 1e-6, 1e9])
@pytest.mark.parametrize("field", ["input_scale", "output_scale"])
def test_activation_scales_are_checked_too(spec, field, scale):
    layers = {CONV: spec("int8").layers[CONV].model_copy(update={field: scale})}
    with pytest.raises(ArtifactError, match=f"layer {CONV} has a scale that float16 does not hold"):
        replace(spec("int8"), layers=layers)


def test_groups_must_divide_and_belong_to_linear_layers(spec):
    tensors = dict(spec("int4").tensors)
    tensors[WEIGHT] = tensors[WEIGHT].repeat(1, 2)[:, :40].contiguous()
    layer = spec("int4").layers[LINEAR]
    with pytest.raises(
        ArtifactError, match=r"layer .*fc2 is a linear of shape \(16, 40\), which groups of 32"
    ):
        QuantSpec("int4", {LINEAR: layer}, tensors)
    conv = Layer(kind="conv2d", bits=4, group=32)
    with pytest.raises(ArtifactError, match=r"layer .*stem.0 is a conv2d of shape .* which groups of 32"):
        QuantSpec("int4", {CONV: conv}, spec("int4").tensors)


def test_integers_of_four_bits_are_bounded(spec):
    tensors = dict(spec("int4").tensors)
    tensors[WEIGHT] = tensors[WEIGHT].clone()
    tensors[WEIGHT][0, 0] = 8
    with pytest.raises(ArtifactError, match="integers outside those of 4 bits"):
        replace(spec("int4"), tensors=tensors)
    tensors[WEIGHT][0, 0] = -8
    replace(spec("int4"), tensors=tensors)


def test_a_folder_of_float_weights_opens_too(tmp_path, model, config):
    from sam3i_edge.model.weights import save_weights

    save_weights(model, tmp_path / "weights")
    opened = open_model(tmp_path / "weights", config)
    assert torch.equal(opened.text_encoder.projection.weight, model.text_encoder.projection.weight)
    shutil.rmtree(tmp_path / "weights")
    with pytest.raises(ArtifactError, match="cannot read the quantized model"):
        open_model(tmp_path / "weights", config)
