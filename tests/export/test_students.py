"""Students through their exported graphs, float and int8, and through the bundle that convert makes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
import students

from sam3i_edge import Segmenter
from sam3i_edge.agreement import model_pairs
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.checkpoints import read_checkpoint
from sam3i_edge.cli.app import main
from sam3i_edge.export.onnx.census import census
from sam3i_edge.export.onnx.graph_file import Offsets, export_graph, write_graph
from sam3i_edge.export.openvino.integers import check_integers, integer_work
from sam3i_edge.export.openvino.ir import convert_graphs
from sam3i_edge.model.efficientvit import LinearAttention
from sam3i_edge.model.graph_specs import GraphSpec, graph_specs
from sam3i_edge.model.weights import load_model, write_config, write_safetensors
from sam3i_edge.pipeline.prompt import join_prompt
from sam3i_edge.quantize.ptq import Prepared
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.runtimes import open_runtime

SLOTS = 4  # the box case has two boxes, so that two slots are padding
# Threshold and pairs that keep few of the random weights' instances: their masks are alike, and one is taken
# for another.
ASKED = {"repvit": (0.342, 3), "efficientvit": (0.3, 6), "tinyvit": (0.09, 6)}
ENCODERS = ("image_encoder", "text_encoder.concept")


@pytest.fixture(scope="module", params=students.FAMILIES)
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A family, and the folder of its converted weights."""
    family = request.param
    folder = tmp_path_factory.mktemp(family)
    checkpoint = read_checkpoint(students.checkpoint(family), config=students.config(family))
    write_safetensors(folder / "base.safetensors", checkpoint.tensors)
    write_config(folder, checkpoint.config)
    return family, folder


@pytest.fixture(scope="module")
def encoders(weights: tuple[str, Path]) -> dict[str, Path]:
    """Its encoders in ONNX."""
    _, folder = weights
    offsets: Offsets = {}
    for graph in ENCODERS:
        offsets = export_graph(folder, load_model(folder).config, folder, 0, graph, offsets, False)
    return {graph: folder / f"{graph}.onnx" for graph in ENCODERS}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_exported_encoders_give_the_released_numbers(weights, encoders, tmp_path, runtime):
    family, paths = weights[0], encoders
    if runtime == "openvino":
        files = convert_graphs(paths, tmp_path, precision="fp32")
        paths = {graph: tmp_path / file for graph, file in files.items()}
    opened = {graph: open_runtime(runtime, path, "cpu") for graph, path in paths.items()}
    given, want = students.arrays(family, "inputs"), students.arrays(family, "outputs")
    maps = opened["image_encoder"].run({"pixel_values": given["pixel_values"]})
    found = {
        name: students.relative(maps[f"fpn_{factor}x"], want[f"vision.{name}"])
        for name, factor in (("fpn0", 4), ("fpn1", 2), ("fpn2", 1))
    }
    for case in students.CASES[:3]:
        text = opened["text_encoder.concept"].run({"input_ids": students.prompt_of(family, case).numpy()})
        found[case] = students.relative(text["text_features"], want[f"concept.{case}.text_features"])
    for runtime_of_graph in opened.values():
        runtime_of_graph.close()
    students.assert_encoders(found)


def test_a_model_without_geometry_and_presence_exports(tmp_path):
    """The token that it lacks is a constant of the image's graph, and masked in the detector's."""
    state = students.state("repvit")
    lacking = {k: v for k, v in state.items() if "geometry_encoder" not in k and "presence_token" not in k}
    torch.save({"model": lacking}, tmp_path / "stage3.pt")
    config = students.config("repvit")
    checkpoint = read_checkpoint(tmp_path / "stage3.pt", config=config, presence=False)
    weights = tmp_path / "weights"
    weights.mkdir()
    write_safetensors(weights / "base.safetensors", checkpoint.tensors)
    write_config(weights, checkpoint.config)
    model = load_model(weights)
    rng = np.random.default_rng(0)
    for spec in (one for one in graph_specs(model) if not one.name.startswith("text_encoder")):
        inputs = {
            name: rng.normal(size=value.shape).astype(np.float32)
            if value.is_floating_point()
            else value.numpy()
            for name, value in spec.inputs.items()
        }
        want = spec.run(inputs)
        export_graph(weights, checkpoint.config, tmp_path, 0, spec.name, {}, False)
        runtime = open_runtime("onnxruntime", tmp_path / f"{spec.name}.onnx", "cpu")
        found = runtime.run(inputs)
        for name, value in want.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4 * max(1.0, np.abs(value).max()))
        if (
            spec.name == "detector"
        ):  # what lies in the last slot changes nothing, though it is said to be real
            inputs["prompt"][:, -1] += 1
            again = runtime.run(inputs)
            assert all(np.array_equal(again[name], value) for name, value in found.items())
        runtime.close()


def test_no_layer_of_a_student_is_left_float_but_squeezes(weights):
    family, folder = weights
    model = load_model(folder)
    for recipe in ("int8", "int4"):
        kept = RECIPES[recipe].modules(model)
        linear = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)
        floats = {
            name
            for name, module in model.named_modules()
            if isinstance(module, linear) and name not in kept and not name.startswith("detector.")
        }
        squeezes = {
            name for name, _ in model.named_modules() if name.endswith(("squeeze.fc1", "squeeze.fc2"))
        }
        assert floats == squeezes
        assert bool(squeezes) == (family == "repvit")


@pytest.mark.slow
def test_int8_keeps_its_integers_and_runs_in_them(weights, tmp_path):
    """At reduced size; the share counts all graphs."""
    _, folder = weights
    model = load_model(folder)
    config = model.config
    rng = np.random.default_rng(0)
    pairs = model_pairs(40, config, 0)
    prepared = Prepared(
        model,
        RECIPES["int8"],
        pairs,
        lambda text: np.pad(rng.integers(1, 300, 6), (0, config.text_context - 6)),
        Preprocessing(image_size=config.image_size),
    )
    spec = prepared.quantize()
    spec.save(tmp_path / "int8.safetensors")
    grouped = [name for name, layer in spec.layers.items() if layer.options.get("groups", 1) > 1]
    assert len(grouped) > 5
    offsets = {}
    graphs = (*ENCODERS, "detector")
    for graph in graphs:
        offsets = export_graph(tmp_path / "int8.safetensors", config, tmp_path, 0, graph, offsets, False)
    paths = {graph: tmp_path / f"{graph}.onnx" for graph in graphs}
    counted = [census(path) for path in paths.values()]
    assert sum(c.integer for c in counted) / sum(c.total for c in counted) >= 0.95
    files = convert_graphs(paths, tmp_path, precision="int8")
    openvino = {graph: tmp_path / file for graph, file in files.items()}
    assert check_integers(spec, openvino) == len(spec.layers)
    work = [integer_work(path) for path in openvino.values()]
    assert sum(integer for integer, _ in work) / sum(total for _, total in work) >= 0.95


def test_sums_over_many_pixels_stay_float32_in_half_precision(tmp_path):
    """Sixty-four times sixty-four pixels of 100 each: float16 ends at 65504."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = LinearAttention(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attention(x * 2)

    x = 50 + torch.rand(1, 12, 64, 64)
    graph = GraphSpec("g", Block(), {"x": torch.zeros_like(x)}, ("y",))
    want = graph.run({"x": x.numpy()})["y"]
    write_graph(graph, tmp_path, {}, half=True)
    model = onnx.load(tmp_path / "g.onnx")
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert len(products) == 3
    assert {types[name] for node in products for name in node.input if name in types} == {
        onnx.TensorProto.FLOAT
    }
    runtime = open_runtime("onnxruntime", tmp_path / "g.onnx", "cpu")
    np.testing.assert_allclose(runtime.run({"x": x.numpy()})["y"], want, rtol=2e-3)
    runtime.close()
    # Where a runtime makes float16 of everything, usual values stay in range.
    assert torch.isfinite(Block().half()((x / 50).half())).all()


@pytest.fixture(scope="module")
def bundle(weights, made_once, converting) -> Iterator[tuple[str, Bundle]]:
    """What `sam3i-edge convert` makes of a family's file."""
    family, _ = weights

    def convert(folder: Path) -> None:
        arguments = converting.arguments(students.checkpoint(family), folder / "bundle", folder)
        threshold, pairs = map(str, ASKED[family])
        changed = {"--config": str(students.config(family)), "--threshold": threshold, "--pairs": pairs}
        for option, value in changed.items():
            arguments[arguments.index(option) + 1] = value
        assert main(arguments) == 0

    return family, Bundle.open(made_once(f"student-{family}", convert) / "bundle")


@pytest.mark.slow
@pytest.mark.parametrize("case", students.CASES)
def test_the_bundle_gives_the_released_numbers(bundle, case):
    family, opened = bundle
    given, want = students.arrays(family, "inputs"), students.arrays(family, "outputs")
    run = {
        name: open_runtime("onnxruntime", path, "cpu") for name, path in opened.graphs("onnx-fp32").items()
    }
    ids = students.prompt_of(family, case).numpy()
    image = run["image_encoder"].run({"pixel_values": given["pixel_values"]})
    text = run["text_encoder.concept"].run({"input_ids": ids})["text_features"]
    geometry, mask = image["cls_token"], None
    if case == "box":
        boxes = np.full((1, SLOTS, 4), 0.5, np.float32)
        labels = np.full((1, SLOTS), -1, np.int64)
        boxes[0, :2], labels[0, :2] = given["box_prompt_cxcywh"], given["box_prompt_labels"]
        shown = run["box_encoder"].run({"boxes": boxes, "labels": labels, "fpn_1x": image["fpn_1x"]})
        geometry, mask = shown["geometry_tokens"], shown["geometry_mask"]
    out = run["detector"].run(
        {
            **{name: image[name] for name in ("fpn_4x", "fpn_2x", "fpn_1x")},
            **join_prompt(text, ids != 0, geometry, mask, boxes=SLOTS),
            "level": np.zeros(1, np.int64),
        }
    )
    for runtime in run.values():
        runtime.close()
    wanted = {name: want[f"concept.{case}.{name}"].astype(np.float64) for name in _OUTPUTS}
    scores = 1 / (1 + np.exp(-wanted["pred_logits"])) / (1 + np.exp(-wanted["presence_logit"]))
    order = _order(out["scores"][0], out["boxes"][0], scores, wanted["pred_boxes_cxcywh"])
    assert np.linalg.norm(out["scores"][0] - scores[order]) <= students.RELATIVE * np.linalg.norm(scores)
    corners = _corners(wanted["pred_boxes_cxcywh"])[order]
    side = given["pixel_values"].shape[-1]
    # One case of the RepViT set makes .04 px of what the encoder rounds, in float64 too; in ONNX Runtime .16.
    wide = 5 if (family, case) == ("repvit", "p2") else 1
    np.testing.assert_allclose(out["boxes"][0] * side, corners * side, rtol=0, atol=wide * students.PIXELS)
    masks = wanted["pred_masks"][order]
    error = np.linalg.norm(out["mask_logits"][0] - masks) / np.linalg.norm(masks)
    assert error <= wide * students.RELATIVE
    assert np.mean((out["mask_logits"][0] > 0) != (masks > 0)) <= students.FLIPS


def _corners(boxes):
    centre, size = np.split(boxes, 2, axis=1)
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1)


def _order(scores, boxes, wanted_scores, wanted_boxes):
    """The query of each row: of those of about its score, which may be tied, that of the nearest box."""
    far = np.abs(boxes[:, None] - _corners(wanted_boxes)).max(-1)
    far[np.abs(scores[:, None] - wanted_scores) > 1e-4] = np.inf
    order = far.argmin(1)
    assert sorted(order) == list(range(len(scores)))
    return order


_OUTPUTS = ("pred_logits", "pred_boxes_cxcywh", "presence_logit", "pred_masks")


@pytest.mark.slow
def test_the_context_reaches_the_tokenizer_the_graphs_and_the_answer(bundle):
    family, opened = bundle
    context = {"repvit": 16, "efficientvit": 16, "tinyvit": 32}[family]
    assert opened.manifest.tokenizer.context_length == context
    assert opened.manifest.model["text_context"] == context
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    with Segmenter(opened.root, threads=1) as segmenter:
        result = segmenter.segment(image, " ".join("abcdefghijklmnopq"))
        assert result.level == "concept"
        assert result.tokens_cut == max(0, 17 - (context - 2))
