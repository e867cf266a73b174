import numpy as np
import pytest

from sam3i_edge.pipeline.prompt import BoxPrompt, join_prompt


def test_boxes_become_centre_and_size_relative_to_the_image():
    prompt = BoxPrompt.of([[10, 20, 30, 60], [0, 0, 100, 80]], [0, 1])
    inputs = prompt.inputs((80, 100), 3)
    np.testing.assert_array_equal(
        inputs["boxes"], np.float32([[[0.2, 0.5, 0.2, 0.5], [0.5, 0.5, 1, 1], [0, 0, 0, 0]]])
    )
    np.testing.assert_array_equal(inputs["labels"], [[0, 1, -1]])
    assert (inputs["boxes"].dtype, inputs["labels"].dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    "labels", [None, [1, 1], (True, True), np.ones(2, np.uint8), np.ones(2)], ids=lambda value: type(value)
)
def test_boxes_are_positive_unless_labelled(labels):
    prompt = BoxPrompt.of(np.float32([[0, 0, 1, 1], [1, 1, 2, 2]]), labels)
    assert len(prompt) == 2
    assert prompt.labels.tolist() == [1, 1]


def test_the_callers_array_is_not_kept():
    boxes, labels = np.array([[0.0, 0, 1, 1]]), np.array([1.0])
    prompt = BoxPrompt.of(boxes, labels)
    boxes[:], labels[:] = 7, 0
    assert prompt.corners.tolist() == [[0, 0, 1, 1]]
    assert prompt.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("boxes", "labels", "message"),
    [
        ([], None, r"shape \[0\]: want \[N, 4\], N at least 1"),
        ([1, 2, 3, 4], None, r"shape \[4\]: want \[N, 4\]"),
        ([[1, 2, 3]], None, r"shape \[1, 3\]: want \[N, 4\]"),
        ([[1, 2, 3, 4], [1, 2]], None, "boxes are no array of numbers"),
        ("all", None, "boxes are no array of numbers"),
        ({"x": 1}, None, "boxes are no array of numbers"),
        ([[0, 0, 1, 1], [0, 0, np.nan, 1]], None, r"boxes\[1\] \(0, 0, nan, 1\) is not finite"),
        ([[0, 0, np.inf, 1]], None, "is not finite"),
        ([[5, 0, 5, 1]], None, r"boxes\[0\] \(5, 0, 5, 1\) is empty: want x0 < x1 and y0 < y1"),
        ([[0, 4, 5, 1]], None, "is empty"),
        ([[0, 0, 1, 1]], [1, 0], r"box_labels have the shape \[2\] for 1 boxes: want 1 \(positive\) or 0"),
        ([[0, 0, 1, 1]], 1, r"box_labels have the shape \[\] for 1 boxes"),
        ([[0, 0, 1, 1]] * 2, [1, -1], r"box_labels\[1\] is -1: want 1 \(positive\) or 0 \(negative\)"),
        ([[0, 0, 1, 1]], [0.5], r"box_labels\[0\] is 0.5"),
        ([[0, 0, 1, 1]], [np.nan], r"box_labels\[0\] is nan"),
        ([[0, 0, 1, 1]], ["yes"], "box_labels are no array of numbers"),
    ],
)
def test_what_no_image_could_take_is_refused(boxes, labels, message):
    with pytest.raises(ValueError, match=message):
        BoxPrompt.of(boxes, labels)


@pytest.mark.parametrize(
    "box", [[-1, 0, 5, 5], [0, -0.1, 5, 5], [0, 0, 100.5, 5], [0, 0, 5, 81], [200, 5, 300, 9]]
)
def test_a_box_that_leaves_the_image_is_refused(box):
    prompt = BoxPrompt.of([[0, 0, 100, 80], box])
    with pytest.raises(
        ValueError, match=r"boxes\[1\] .* leaves the image of 100 x 80 pixels: clip x to 0..100"
    ):
        prompt.check_inside((80, 100))
    BoxPrompt.of([[0, 0, 100, 80]]).check_inside((80, 100))


def test_unused_slots_lie_between_text_and_cls_and_are_masked():
    text, cls = np.full((1, 4, 2), 1, np.float32), np.full((1, 1, 2), 2, np.float32)
    text_mask = np.array([[True, True, False, False]])
    joined = join_prompt(text, text_mask, cls, boxes=3)
    assert joined["prompt"][0, :, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 2]
    assert joined["prompt_mask"][0].tolist() == [True, True, *[False] * 5, True]
    assert (joined["prompt"].dtype, joined["prompt_mask"].dtype) == (np.float32, np.bool_)


def test_tokens_of_boxes_take_the_slots():
    text, text_mask = np.full((1, 4, 2), 1, np.float32), np.ones((1, 4), bool)
    tokens = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    mask = np.array([[True, False, False, True]])
    joined = join_prompt(text, text_mask, tokens, mask, boxes=3)
    np.testing.assert_array_equal(joined["prompt"][0, 4:], tokens[0])
    assert joined["prompt_mask"][0].tolist() == [*[True] * 5, False, False, True]
    plain = join_prompt(text, text_mask, tokens[:, -1:], boxes=0)
    assert plain["prompt"].shape == (1, 5, 2)
    assert plain["prompt_mask"].all()
