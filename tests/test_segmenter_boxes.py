"""Box prompts through `Segmenter`, on tiny graphs whose results follow from formulas."""

import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

from sam3i_edge import Result, Segmenter
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.errors import ArtifactError, InstructionError, RuntimeUnavailable
from sam3i_edge.levels import LEVELS
from sam3i_edge.pipeline.preprocess import to_pixel_values
from sam3i_edge.pipeline.timing import STEPS

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
BOXES = [[6.0, 4.0, 30.0, 20.0], [0.0, 0.0, 60.0, 40.0]]


@pytest.fixture
def segmenter(tiny_box_bundle):
    with Segmenter(tiny_box_bundle.root, threads=1, threshold=0.0) as opened:
        yield opened


def expected_presence(bundle, text, level, boxes, labels):
    """The tiny graphs' presence, from their formulas: it depends on every part of the prompt."""
    root = bundle.root / "onnx-fp32"
    weights = {
        name: {
            t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(root / f"{name}.onnx").graph.initializer
        }
        for name in ("image_encoder", f"text_encoder.{level}", "box_encoder", "detector")
    }
    pixels = to_pixel_values(PICTURE, 32, (0.5,) * 3, (0.5,) * 3)[0]
    fpn_4x = np.einsum("oikl,iykxl->oyx", weights["image_encoder"]["w"], pixels.reshape(3, 8, 4, 8, 4))
    fpn_1x = fpn_4x.reshape(8, 2, 4, 2, 4).mean((2, 4))
    ids = bundle.tokenizer().encode(text).ids
    total = weights[f"text_encoder.{level}"]["table"][ids[ids != 0]].sum(0)
    cls = fpn_1x.mean((1, 2))
    for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
        place = np.array([(x0 + x1) / 120, (y0 + y1) / 80, (x1 - x0) / 60, (y1 - y0) / 40])
        token = place @ weights["box_encoder"]["w"] + weights["box_encoder"]["label_table"][label]
        total, cls = (
            total + token,
            cls + token,
        )  # once as a token, once in the CLS token that replaces the image's
    p = total + cls + weights["detector"]["level_table"][LEVELS.index(level)]
    return 1 / (1 + np.exp(-(p.mean() + fpn_1x.mean())))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("labels", [None, [1, 0], [0, 0]])
def test_text_and_boxes(tiny_box_bundle, segmenter, level, labels):
    result = segmenter.segment(PICTURE, "the red star", boxes=BOXES, box_labels=labels, level=level)
    want = expected_presence(tiny_box_bundle, "the red star", level, BOXES, labels or [1, 1])
    assert result.presence == pytest.approx(want, abs=1e-5)
    assert (result.instruction, result.level, len(result)) == ("the red star", level, 4)


def test_boxes_alone_ask_for_visual_at_level_concept(tiny_box_bundle, segmenter):
    result = segmenter.segment(PICTURE, boxes=BOXES[:1])
    want = expected_presence(tiny_box_bundle, "visual", "concept", BOXES[:1], [1])
    assert result.presence == pytest.approx(want, abs=1e-5)
    assert (result.instruction, result.level, result.level_chosen_by) == (None, "concept", "auto")
    assert segmenter.segment(PICTURE, boxes=BOXES[:1], level="concept").level_chosen_by == "caller"


def test_without_boxes_the_slots_change_nothing(tiny_bundle, segmenter):
    with Segmenter(tiny_bundle.root, threads=1, threshold=0.0) as plain:
        for level in LEVELS:
            want = plain.segment(PICTURE, "every large square", level=level)
            got = segmenter.segment(PICTURE, "every large square", level=level)
            assert got.presence == pytest.approx(want.presence, abs=1e-6)
            np.testing.assert_allclose(got.scores, want.scores, atol=1e-6)
            np.testing.assert_allclose(got.mask_logits, want.mask_logits, rtol=1e-5, atol=1e-4)


def test_a_scene_takes_boxes_too(segmenter, runs):
    wanted = segmenter.segment(PICTURE, "star", boxes=np.float32(BOXES), box_labels=np.array([True, False]))
    scene = segmenter.encode(PICTURE)
    got = scene.segment("star", boxes=BOXES, box_labels=[1, 0])
    assert np.array_equal(got.mask_logits, wanted.mask_logits)
    assert got.presence == wanted.presence
    assert scene.segment(boxes=BOXES).instruction is None
    with pytest.raises(ValueError, match="leaves the image of 60 x 40"):
        scene.segment("star", boxes=[[0, 0, 61, 40]])
    assert runs.count("image_encoder") == 1


def test_each_of_several_instructions_is_asked_with_the_boxes(segmenter, runs):
    wanted = [segmenter.segment(PICTURE, text, boxes=BOXES).presence for text in ("star", "ring")]
    assert [r.presence for r in segmenter.segment(PICTURE, ["star", "ring"], boxes=BOXES)] == wanted
    with pytest.raises(ValueError, match="leaves the image of 60 x 40"):
        segmenter.segment(PICTURE, ["star", "ring"], boxes=[[0, 0, 61, 40]])
    assert runs.count("image_encoder") == 1


def test_streams_take_no_boxes(segmenter):
    assert "boxes" not in inspect.signature(segmenter.stream).parameters


def test_boxes_are_encoded_each_time_and_timed(segmenter, runs):
    first = segmenter.segment(PICTURE, "star", boxes=BOXES)
    again = segmenter.segment(PICTURE, "star", boxes=BOXES)
    assert runs == [
        "image_encoder",
        "text_encoder.concept",
        "box_encoder",
        "detector",
        "box_encoder",
        "detector",
    ]
    assert tuple(first.timings_ms) == STEPS
    assert first.timings_ms["encode_boxes"] > 0
    assert again.timings_ms["encode_boxes"] > 0
    assert segmenter.segment(PICTURE, "star").timings_ms["encode_boxes"] == 0.0
    assert np.array_equal(first.mask_logits, again.mask_logits)


def test_the_box_encoder_opens_when_boxes_are_first_given(tiny_box_bundle):
    with Segmenter(tiny_box_bundle.root, threads=1) as segmenter:
        segmenter.segment(PICTURE, "star")
        assert "box_encoder" not in segmenter._graphs._opened
        segmenter.segment(PICTURE, boxes=BOXES)
        assert "box_encoder" in segmenter._graphs._opened


def test_info_says_how_many_boxes(segmenter):
    assert segmenter.info.max_boxes == 3
    with pytest.raises(AttributeError, match="it is called max_boxes"):
        segmenter.info.boxes  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, InstructionError, "neither an instruction nor a box: describe what to segment"),
        ({"instruction": " ", "boxes": BOXES}, InstructionError, "the instruction is empty"),
        (
            {"instruction": "star", "box_labels": [1]},
            ValueError,
            "box_labels say what .* pass boxes too",
        ),
        ({"boxes": BOXES * 2}, ValueError, "got 4 boxes, model 'tiny' takes at most 3: pass fewer"),
        ({"boxes": []}, ValueError, r"shape \[0\]: want \[N, 4\], N at least 1"),
        ({"boxes": BOXES[0]}, ValueError, r"shape \[4\]: want \[N, 4\]"),
        ({"boxes": BOXES, "box_labels": [1]}, ValueError, r"box_labels have the shape \[1\] for 2 boxes"),
        (
            {"boxes": BOXES, "box_labels": [1, 2]},
            ValueError,
            r"box_labels\[1\] is 2: want 1 \(positive\)",
        ),
        ({"boxes": [[0, 0, 60.5, 40]]}, ValueError, "leaves the image of 60 x 40 pixels: clip x to 0..60"),
        ({"boxes": [[3, 0, 3, 40]]}, ValueError, "is empty: want x0 < x1"),
        ({"boxes": [[0, 0, np.nan, 40]]}, ValueError, "is not finite"),
        (
            {"boxes": BOXES, "level": "simple"},
            ValueError,
            "asked at level concept, got level 'simple': leave",
        ),
        ({"boxes": BOXES, "level": "hard"}, ValueError, "unknown level 'hard'"),
        ({"boxes": BOXES, "labels": [1, 0]}, TypeError, "no argument 'labels': it is called box_labels"),
        ({"instruction": "star", "size": 3}, TypeError, "no argument 'size'$"),
        ({"instruction": ["star", None], "boxes": BOXES}, TypeError, "must be a string, got None"),
        ({"instruction": ["star", " "]}, InstructionError, "the instruction is empty"),
    ],
    ids=range(17),
)
def test_bad_prompts_are_refused_before_anything_runs(segmenter, runs, arguments, error, message):
    with pytest.raises(error, match=message):
        segmenter.segment(PICTURE, **arguments)
    assert runs == []
    with pytest.raises(error, match=message):
        segmenter.encode(PICTURE).segment(**arguments)
    assert runs == ["image_encoder"]
    assert len(segmenter.segment(PICTURE, "star", boxes=BOXES)) == 4


def test_a_bundle_without_a_box_encoder_says_so(tiny_bundle):
    with (
        Segmenter(tiny_bundle.root, threads=1) as segmenter,
        pytest.raises(
            ValueError, match=r"model 'tiny' takes no boxes \(variant onnx-fp32 has no box_encoder\)"
        ),
    ):
        segmenter.segment(PICTURE, "star", boxes=BOXES)


def test_closed_segmenter_refuses(tiny_box_bundle):
    with Segmenter(tiny_box_bundle.root, threads=1) as segmenter:
        scene = segmenter.encode(PICTURE)
    with pytest.raises(RuntimeUnavailable, match="this Segmenter was closed"):
        scene.segment(boxes=BOXES)


def test_threads_share_the_box_encoder(segmenter):
    asked = [(text, BOXES[: 1 + n % 2], [n // 2] * (1 + n % 2)) for text in ("star", None) for n in range(4)]
    wanted = [segmenter.segment(PICTURE, t, boxes=b, box_labels=k).presence for t, b, k in asked]
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda a: segmenter.segment(PICTURE, a[0], boxes=a[1], box_labels=a[2]), asked * 8)
        got = [result.presence for result in results]
    assert got == wanted * 8
    assert len(set(wanted)) == 8


@pytest.mark.parametrize("change", ["count without the graph", "graph without the count"])
def test_a_manifest_that_contradicts_itself_is_refused(tiny_box_bundle, tmp_path, change):
    variant = tiny_box_bundle.manifest.variants["onnx-fp32"]
    if change == "graph without the count":
        broken, message = variant.model_copy(update={"boxes": 0}), "takes 0 boxes and has box_encoder"
    else:
        graphs = {name: file for name, file in variant.graphs.items() if name != "box_encoder"}
        broken, message = variant.model_copy(update={"graphs": graphs}), "takes 3 boxes and lacks box_encoder"
    with (
        pytest.raises(ArtifactError, match=message),
        new_bundle(tmp_path / "broken", base=tiny_box_bundle) as folder,
    ):
        folder.finish(variants={"onnx-fp32": broken.model_dump()})


def test_a_wrong_count_is_graphs_that_do_not_fit(tiny_box_bundle, tmp_path):
    variant = tiny_box_bundle.manifest.variants["onnx-fp32"].model_copy(update={"boxes": 2})
    with new_bundle(tmp_path / "wrong", base=tiny_box_bundle) as folder:
        folder.finish(variants={"onnx-fp32": variant})
    with Segmenter(tmp_path / "wrong", threads=1) as segmenter:
        for ask in ({"instruction": "star"}, {"boxes": BOXES}):
            with pytest.raises(ArtifactError, match="graphs do not fit together"):
                segmenter.segment(PICTURE, **ask)


def test_a_result_without_an_instruction(segmenter, tmp_path):
    result = segmenter.segment(PICTURE, boxes=BOXES, box_labels=[1, 0])
    again = Result.from_json(result.to_json())
    assert result.to_dict()["instruction"] is None
    assert again.instruction is None
    assert np.array_equal(again.masks, result.masks)
    assert repr(result).startswith("<Result '(by boxes)' (concept): 4 found")
    assert result.save(tmp_path / "boxes.png").stat().st_size > 0
    assert result[0].instruction is None
    assert len(result.to_coco(image_id=1)) == 4


def test_a_class_name_stands_in_for_the_instruction(segmenter):
    pytest.importorskip("supervision")
    found = segmenter.segment(PICTURE, boxes=BOXES).to_supervision()
    assert set(found.data["class_name"]) == {"visual"}
