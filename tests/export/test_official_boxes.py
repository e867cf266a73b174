"""The official code's numbers against a bundle of its checkpoint, boxes and text alone, at all levels."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
import official

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.levels import LEVELS
from sam3i_edge.pipeline.postprocess import pixel_boxes, resize_mask_logits, select
from sam3i_edge.pipeline.prompt import BoxPrompt, join_prompt
from sam3i_edge.runtimes import open_runtime

SLOTS = 4  # of the bundle; the official case has two boxes, so that two slots are padding
THRESHOLD = 0.443
Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[str, Arrays], Arrays]


@pytest.fixture(scope="module")
def run(converted: Bundle) -> Iterator[Run]:
    """Runs a graph of the official checkpoint, converted with box slots."""
    graphs = converted.graphs("onnx-fp32")
    opened = {name: open_runtime("onnxruntime", path, "cpu") for name, path in graphs.items()}
    yield lambda graph, inputs: opened[graph].run(inputs)
    for runtime in opened.values():
        runtime.close()


def _detect(run: Run, level: str, prompt: int, boxes: BoxPrompt | None) -> tuple[Arrays, Arrays]:
    given = official.arrays("inputs")
    ids = given["token_ids"][prompt : prompt + 1]
    features = run("image_encoder", {"pixel_values": given["pixel_values"]})
    text = run(f"text_encoder.{level}", {"input_ids": ids})["text_features"]
    geometry, mask = features["cls_token"], None
    if boxes is not None:
        size = given["image_uint8"].shape[:2]
        shown = run("box_encoder", {**boxes.inputs(size, SLOTS), "fpn_1x": features["fpn_1x"]})
        geometry, mask = shown["geometry_tokens"], shown["geometry_mask"]
    inputs = {
        **{name: features[name] for name in ("fpn_4x", "fpn_2x", "fpn_1x")},
        **join_prompt(text, ids != 0, geometry, mask, boxes=SLOTS),
        "level": np.array([LEVELS.index(level)]),
    }
    return inputs, run("detector", inputs)


def _official_boxes() -> BoxPrompt:
    """The fixture's boxes as a user gives them: corners in pixels."""
    given = official.arrays("inputs")
    height, width = given["image_uint8"].shape[:2]
    centre, size = np.split(given["box_prompt_cxcywh"].astype(np.float64), 2, axis=1)
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1) * [width, height, width, height]
    return BoxPrompt.of(corners, given["box_prompt_labels"])


def test_the_box_case_holds_a_positive_and_a_negative_box_inside_the_image() -> None:
    boxes = _official_boxes()
    boxes.check_inside(official.arrays("inputs")["image_uint8"].shape[:2])
    assert sorted(boxes.labels.tolist()) == [0, 1]
    encoded = boxes.inputs(official.arrays("inputs")["image_uint8"].shape[:2], SLOTS)["boxes"][0, :2]
    np.testing.assert_allclose(encoded, official.arrays("inputs")["box_prompt_cxcywh"], rtol=0, atol=1e-7)


def _assert_official(level: str, case: str, inputs: Arrays, out: Arrays) -> None:
    """The fixture README's limits, raw and post-processed."""
    want = {
        name.removeprefix(f"{level}.{case}."): value
        for name, value in official.arrays("outputs").items()
        if name.startswith(f"{level}.{case}.")
    }
    geometry = want["geometry_tokens"]
    tokens = np.concatenate([inputs["prompt"][0, 32 : 32 + len(geometry) - 1], inputs["prompt"][0, -1:]])
    assert np.linalg.norm(tokens - geometry) <= official.RELATIVE * np.linalg.norm(geometry)
    np.testing.assert_allclose(out["presence"][0], want["presence_logit"], rtol=0, atol=1e-5)
    # The graph sorts its queries, the fixture does not.
    official_scores = 1 / (1 + np.exp(-want["pred_logits"].astype(np.float64)))
    official_scores /= 1 + np.exp(-float(want["presence_logit"][0]))
    order = np.argsort(-official_scores, kind="stable")
    np.testing.assert_allclose(out["scores"][0], official_scores[order], rtol=0, atol=official.SCORES)
    ours = out["boxes"][0].astype(np.float64)
    ours = np.concatenate([(ours[:, :2] + ours[:, 2:]) / 2, ours[:, 2:] - ours[:, :2]], axis=1)
    np.testing.assert_allclose(ours, want["pred_boxes_cxcywh"][order], rtol=0, atol=official.BOXES)

    size = official.arrays("inputs")["image_uint8"].shape[:2]
    kept = select(
        out["scores"][0],
        out["boxes"][0],
        out["mask_logits"][0],
        float(out["presence"][0, 0]),
        size,
        threshold=THRESHOLD,
    )
    assert sorted(order[kept.index].tolist()) == want["post.query_index"].tolist()
    row = {query: n for n, query in enumerate(want["post.query_index"])}
    rows = [row[query] for query in order[kept.index]]
    np.testing.assert_allclose(kept.scores, want["post.scores"][rows], rtol=0, atol=official.SCORES)
    np.testing.assert_allclose(
        pixel_boxes(out["boxes"][0][kept.index], size, clip=False),
        want["post.boxes_xyxy_px"][rows],
        rtol=0,
        atol=5e-3,
    )
    masks = np.unpackbits(want["post.masks_packed"][rows], axis=1, count=size[0] * size[1]).astype(bool)
    found = resize_mask_logits(kept.mask_logits, size)
    assert len(found) > 0
    assert np.mean(found.reshape(masks.shape) != masks) <= 1e-4


@pytest.mark.parametrize("level", LEVELS)
def test_boxes_give_the_official_results(run: Run, level: str) -> None:
    inputs, out = _detect(run, level, official.BOX_PROMPT, _official_boxes())
    assert inputs["prompt_mask"][0, 32:].tolist() == [True, True, False, False, True]
    _assert_official(level, "box", inputs, out)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("prompt", range(official.PROMPTS))
def test_text_alone_gives_the_official_results_with_all_box_slots_masked(
    run: Run, level: str, prompt: int
) -> None:
    _assert_official(level, f"p{prompt}", *_detect(run, level, prompt, None))


@pytest.mark.parametrize("level", LEVELS)
def test_what_lies_in_a_masked_slot_changes_nothing(run: Run, level: str) -> None:
    inputs, out = _detect(run, level, 0, None)
    noise = np.random.default_rng(0).normal(0, 10, inputs["prompt"].shape).astype(np.float32)
    masked = ~inputs["prompt_mask"][..., None]
    assert masked.sum() > SLOTS
    changed = run("detector", {**inputs, "prompt": np.where(masked, noise, inputs["prompt"])})
    for name, value in out.items():
        np.testing.assert_array_equal(changed[name], value, name)


@pytest.mark.parametrize("mistake", ["labels swapped", "the image's CLS token kept", "corners for centres"])
def test_mistakes_are_caught(run: Run, mistake: str) -> None:
    boxes = _official_boxes()
    if mistake == "labels swapped":
        boxes = BoxPrompt.of(boxes.corners, 1 - boxes.labels)
    inputs, out = _detect(run, "concept", official.BOX_PROMPT, boxes)
    if mistake == "the image's CLS token kept":
        plain, _ = _detect(run, "concept", official.BOX_PROMPT, None)
        prompt = np.concatenate([inputs["prompt"][:, :-1], plain["prompt"][:, -1:]], axis=1)
        inputs = {**inputs, "prompt": prompt}
        out = run("detector", inputs)
    if mistake == "corners for centres":
        size = official.arrays("inputs")["image_uint8"].shape[:2]
        wrong = boxes.inputs(size, SLOTS)
        wrong["boxes"][0, :2] = boxes.corners / [size[1], size[0], size[1], size[0]]
        shown = run("box_encoder", {**wrong, "fpn_1x": inputs["fpn_1x"]})
        prompt = np.concatenate([inputs["prompt"][:, :32], shown["geometry_tokens"]], axis=1)
        inputs = {**inputs, "prompt": prompt}
        out = run("detector", inputs)
    with pytest.raises(AssertionError):
        _assert_official("concept", "box", inputs, out)
