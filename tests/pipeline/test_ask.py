"""What each graph is given and asked for, by a runner that writes down its calls."""

import numpy as np
import pytest

from sam3i_edge.levels import LEVELS
from sam3i_edge.pipeline import ask
from sam3i_edge.pipeline.prompt import BoxPrompt

C, T, SLOTS = 2, 4, 3
IMAGE = {
    "fpn_4x": np.full((1, C, 4, 4), 4, np.float32),
    "fpn_2x": np.full((1, C, 2, 2), 2, np.float32),
    "fpn_1x": np.full((1, C, 1, 1), 1, np.float32),
    "cls_token": np.full((1, 1, C), 9, np.float32),
}
TOKENS = {
    "geometry_tokens": np.arange(8, dtype=np.float32).reshape(1, SLOTS + 1, C),
    "geometry_mask": np.array([[True, False, False, True]]),
}
OUTPUTS = {
    "scores": np.array([[0.9, 0.2, 0.6]], np.float32),
    "boxes": np.array([[[0, 0, 0.5, 0.5], [0, 0, 1, 1], [0.5, 0.5, 1, 1]]], np.float32),
    "mask_logits": np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2),
    "presence": np.zeros((1, 1), np.float32),
}


@pytest.fixture
def run():
    given = {"image_encoder": IMAGE, "box_encoder": TOKENS, "detector": OUTPUTS}
    given |= {
        f"text_encoder.{level}": {"text_features": np.full((1, T, C), n, np.float32)}
        for n, level in enumerate(LEVELS)
    }

    def run(graph, inputs, wanted):
        run.calls.append((graph, inputs, wanted))
        return {name: given[graph][name] for name in wanted}

    run.calls = []
    return run


def test_an_image_gives_its_maps_and_its_token(run):
    pixels = np.zeros((1, 3, 4, 4), np.float32)
    assert ask.encode_image(run, pixels).keys() == IMAGE.keys()
    ((graph, inputs, _),) = run.calls
    assert graph == "image_encoder"
    assert inputs["pixel_values"] is pixels


@pytest.mark.parametrize("level", LEVELS)
def test_a_text_is_encoded_and_answered_at_its_level(run, level):
    text = ask.encode_text(run, np.array([5, 7, 0, 0]), level)
    ask.detect(run, IMAGE, text)
    (encoder, ids, _), (detector, inputs, _) = run.calls
    assert (encoder, detector) == (f"text_encoder.{level}", "detector")
    assert ids["input_ids"].tolist() == [[5, 7, 0, 0]]
    assert text.mask.tolist() == [[True, True, False, False]]
    assert inputs["level"].tolist() == [LEVELS.index(level)]
    assert inputs["level"].dtype == np.int64
    assert (inputs["prompt"][0, :T] == LEVELS.index(level)).all()


def test_without_boxes_the_slots_are_masked_and_the_image_gives_the_token(run):
    text = ask.encode_text(run, np.array([5, 7, 0, 0]), "simple")
    ask.detect(run, IMAGE, text, slots=SLOTS)
    inputs = run.calls[-1][1]
    assert inputs["prompt"][0, :, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 9]
    assert inputs["prompt_mask"][0].tolist() == [True, True, *[False] * 5, True]
    assert all(inputs[name] is IMAGE[name] for name in ("fpn_4x", "fpn_2x", "fpn_1x"))


def test_tokens_of_boxes_take_the_place_of_the_images_token(run):
    boxes = ask.encode_boxes(run, IMAGE, BoxPrompt.of([[0, 0, 10, 20]], [0]), (40, 20), SLOTS)
    graph, inputs, _ = run.calls[0]
    assert graph == "box_encoder"
    assert inputs["fpn_1x"] is IMAGE["fpn_1x"]
    assert inputs["boxes"][0].tolist() == [[0.25, 0.25, 0.5, 0.5], [0] * 4, [0] * 4]
    assert inputs["labels"].tolist() == [[0, -1, -1]]
    ask.detect(run, IMAGE, ask.encode_text(run, np.array([5, 7, 8, 9]), "concept"), boxes, slots=SLOTS)
    detector = run.calls[-1][1]
    np.testing.assert_array_equal(detector["prompt"][0, T:], TOKENS["geometry_tokens"][0])
    assert detector["prompt_mask"][0].tolist() == [*[True] * 4, True, False, False, True]


def test_what_is_found_is_above_the_thresholds(run):
    text = ask.encode_text(run, np.array([5, 0, 0, 0]), "concept")
    found = ask.find(ask.detect(run, IMAGE, text), (40, 20), threshold=0.5, mask_threshold=1.0)
    assert found.index.tolist() == [0, 2]
    assert found.boxes.tolist() == [[0, 0, 10, 20], [10, 20, 20, 40]]
    assert found.mask_logits[1].tolist() == [[7, 8], [9, 10]]
    assert found.presence == 0.5
