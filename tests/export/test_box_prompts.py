"""Box prompts through a bundle of a small random model: `Segmenter` beside the model in PyTorch."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
import torch

from sam3i_edge import Result, Segmenter
from sam3i_edge.agreement import check, compare, drawn_pairs
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.errors import ParityError
from sam3i_edge.export.staged import TorchGraphs, answers
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.graph_specs import graph_specs
from sam3i_edge.model.sam3i import join_prompt
from sam3i_edge.pipeline.postprocess import Detections, select
from sam3i_edge.pipeline.preprocess import to_pixel_values
from sam3i_edge.runtimes import open_runtime

SLOTS = 3
SIZE = (50, 70)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
BOXES = [[10.0, 5.0, 40.0, 30.0], [35.5, 20.0, 70.0, 50.0]]
THRESHOLD = 0.3


@pytest.fixture(scope="module")
def segmenter(exported_with_boxes):
    with Segmenter(exported_with_boxes.bundle, threads=1, threshold=THRESHOLD) as opened:
        yield opened


@torch.no_grad()
def in_torch(exported, text, level, boxes=(), labels=()) -> Detections:
    """The model's own answer, with a prompt of exactly the tokens there are."""
    model = exported.model
    ids = torch.from_numpy(Bundle.open(exported.bundle).tokenizer().encode(text).ids[None])
    index = torch.tensor([LEVELS.index(level)])
    values = to_pixel_values(IMAGE, model.config.image_size, (0.5,) * 3, (0.5,) * 3)
    maps = model.image_encoder(torch.from_numpy(values))
    if boxes:
        x0, y0, x1, y1 = np.float64(boxes).T / [[70], [50], [70], [50]]
        centred = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=1)
        geometry = model.geometry_encoder(
            maps[-1], torch.from_numpy(centred).float()[None], torch.tensor(labels)[None]
        )
    else:
        geometry = model.geometry_encoder(maps[-1])
    prompt, mask = join_prompt(model.encode_text(ids, index), ids, geometry)
    scores, corners, masks, presence = model.detector(*maps, prompt, mask, index)
    return select(
        scores[0].numpy(), corners[0].numpy(), masks[0].numpy(), float(presence), SIZE, threshold=THRESHOLD
    )


def assert_same(got: Result, want: Detections) -> None:
    assert len(got) == len(want.scores) > 0
    assert got.presence == pytest.approx(want.presence, abs=1e-5)
    # Random weights give scores that tie: rows by their boxes.
    mine, its = (np.lexsort(np.round(one.boxes).T) for one in (got, want))
    np.testing.assert_allclose(got.scores[mine], want.scores[its], rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.boxes[mine], want.boxes[its], rtol=0, atol=1e-2)
    assert got.mask_logits is not None
    scale = float(np.abs(want.mask_logits).max())
    np.testing.assert_allclose(got.mask_logits[mine], want.mask_logits[its], rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("labels", [[1, 1], [1, 0], [0, 0]], ids=["positive", "mixed", "negative"])
def test_text_and_boxes(exported_with_boxes, segmenter, level, labels):
    got = segmenter.segment(IMAGE, "the red star", boxes=BOXES, box_labels=labels, level=level)
    assert_same(got, in_torch(exported_with_boxes, "the red star", level, BOXES, labels))


@pytest.mark.parametrize("count", [1, 2, SLOTS])
def test_boxes_alone(exported_with_boxes, segmenter, count):
    boxes = [*BOXES, [0.0, 0.0, 70.0, 50.0]][:count]
    got = segmenter.encode(IMAGE).segment(boxes=boxes)
    assert (got.instruction, got.level) == (None, "concept")
    assert_same(got, in_torch(exported_with_boxes, "visual", "concept", boxes, [1] * count))


@pytest.mark.parametrize("level", LEVELS)
def test_text_alone_is_what_it_is_without_box_slots(exported_with_boxes, exported, segmenter, level):
    want = in_torch(exported_with_boxes, "every large square", level)
    assert_same(segmenter.segment(IMAGE, "every large square", level=level), want)
    with Segmenter(exported.bundle, threads=1, threshold=THRESHOLD) as plain:
        assert_same(plain.segment(IMAGE, "every large square", level=level), want)


def test_boxes_and_their_labels_matter(segmenter):
    asked = [{}, {"boxes": BOXES}, {"boxes": BOXES, "box_labels": [1, 0]}, {"boxes": BOXES[:1]}]
    found = [segmenter.segment(IMAGE, "star", **prompt) for prompt in asked]
    assert len({(round(one.presence, 5), *np.round(one.scores, 5)) for one in found}) == len(asked)


def test_the_bundle_says_what_it_takes(exported_with_boxes, exported):
    (variant,) = exported_with_boxes.manifest.variants.values()
    assert variant.boxes == SLOTS
    path = exported_with_boxes.bundle / variant.graphs["box_encoder"]
    graph = onnx.load(path, load_external_data=False).graph
    assert [value.name for value in graph.input] == ["boxes", "labels", "fpn_1x"]
    assert [value.name for value in graph.output] == ["geometry_tokens", "geometry_mask"]
    detector = exported_with_boxes.bundle / variant.graphs["detector"]
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in onnx.load(detector, load_external_data=False).graph.input
    }
    assert shapes["prompt_mask"] == [1, 32 + SLOTS + 1]
    (plain,) = exported.manifest.variants.values()
    assert plain.boxes == 0
    assert "box_encoder" not in plain.graphs


@pytest.mark.parametrize("used", range(SLOTS + 1))
def test_box_encoder_equals_the_model(exported_with_boxes, used):
    spec = next(s for s in graph_specs(exported_with_boxes.model, SLOTS) if s.name == "box_encoder")
    generator = torch.Generator().manual_seed(used)
    corners = torch.rand(1, SLOTS, 2, 2, generator=generator).sort(dim=2).values
    boxes = torch.cat((corners.mean(2), corners[:, :, 1] - corners[:, :, 0]), dim=-1)
    labels = torch.where(torch.arange(SLOTS) < used, torch.arange(SLOTS) % 2, -1)[None]
    inputs = (boxes, labels, torch.randn(spec.inputs["fpn_1x"].shape, generator=generator))
    with torch.no_grad():
        tokens, mask = spec.module(*inputs)
    path = (
        exported_with_boxes.bundle / exported_with_boxes.manifest.variants["onnx-fp32"].graphs["box_encoder"]
    )
    runtime = open_runtime("onnxruntime", path, "cpu")
    got = runtime.run({name: value.numpy() for name, value in zip(spec.inputs, inputs, strict=True)})
    runtime.close()
    np.testing.assert_array_equal(got["geometry_mask"], mask.numpy())
    assert mask.sum() == used + 1
    np.testing.assert_allclose(got["geometry_tokens"], tokens.numpy(), rtol=0, atol=2e-5)


def test_the_gate_asks_by_boxes_too(exported_with_boxes):
    assert exported_with_boxes.agreement.instances > 0
    pairs = drawn_pairs(60, boxes=SLOTS)
    shown = [pair.boxes for pair in pairs if pair.boxes is not None]
    assert len(shown) >= 15
    assert {len(boxes) for boxes in shown} == {1, 2, SLOTS}
    assert {int(label) for boxes in shown for label in boxes.labels} == {0, 1}
    for pair in pairs:
        if pair.boxes is not None:
            pair.boxes.check_inside(pair.image.shape[:2])
            assert pair.granularity != "none"
    assert [pair.text for pair in drawn_pairs(60)] == [pair.text for pair in pairs]


class SwappedLabels(TorchGraphs):
    """The model with a box encoder that takes positive for negative."""

    @contextlib.contextmanager
    def open(self, graph):
        with TorchGraphs.open(self, graph) as run:
            swap = graph == "box_encoder"
            yield lambda inputs: run({**inputs, "labels": inputs["labels"] ^ 1} if swap else inputs)


def test_the_gate_sees_a_wrong_box_encoder(exported_with_boxes):
    bundle = Bundle.open(exported_with_boxes.bundle)
    pairs = [pair for pair in drawn_pairs(20, boxes=SLOTS) if pair.boxes is None or len(pair.boxes) == SLOTS]
    assert sum(pair.boxes is not None for pair in pairs) >= 2
    shares: list[float] = []
    right, wrong = (
        answers(
            graphs(bundle.root / "weights", exported_with_boxes.model.config, SLOTS),
            pairs,
            bundle.tokenizer(),
            bundle.manifest.preprocessing,
            0.5,
            SLOTS,
            progress=lambda _, share: shares.append(share),
        )
        for graphs in (TorchGraphs, SwappedLabels)
    )
    first = shares[: shares.index(1.0)]  # of the first: pair by pair, through every graph
    assert first == sorted(first)
    assert len(set(first)) > 2 * len(pairs)
    check(compare(right, right), "fp32")
    with pytest.raises(ParityError):
        check(compare(right, wrong), "fp32")


def test_export_traces_aten_operators_only(exported_with_boxes):
    spec = next(s for s in graph_specs(exported_with_boxes.model, SLOTS) if s.name == "box_encoder")
    program = torch.export.export(spec.module, tuple(spec.inputs.values()))
    calls = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert calls
    assert all(c.startswith(("aten.", "<built-in function getitem>")) for c in calls), set(calls)
