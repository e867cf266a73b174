import dataclasses

import numpy as np
import pytest

from sam3i_edge.result import Result
from sam3i_edge.tracking import Tracker

SIDE = 40


def frame(*boxes, holes=False, side=SIDE):
    """A Result of filled boxes (x0, y0, x1, y1) on a grid of `side`; with `holes` their masks are empty."""
    logits = np.full((len(boxes), side, side), -5.0, np.float32)
    if not holes:
        for mask, (x0, y0, x1, y1) in zip(logits, boxes, strict=True):
            mask[y0:y1, x0:x1] = 5.0
    return Result(
        image_size=(side, side),
        instruction="star",
        level="concept",
        level_chosen_by="caller",
        presence=0.9,
        scores=np.full(len(boxes), 0.9, np.float32),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        mask_logits=logits,
        threshold=0.5,
        model="tiny",
        device="cpu",
        runtime="onnxruntime",
        precision="fp32",
    )


def ids(tracker, *boxes, **options):
    numbers = tracker.update(frame(*boxes, **options))
    assert numbers.dtype == np.int64
    return numbers.tolist()


def test_ids_follow_the_things_and_not_their_order():
    tracker = Tracker()
    left, right = (2, 2, 12, 12), (25, 20, 35, 30)
    assert ids(tracker, left, right) == [1, 2]
    assert ids(tracker, (26, 21, 36, 31), (3, 2, 13, 12)) == [2, 1]
    assert ids(tracker, (4, 3, 14, 13)) == [1]


def test_the_greatest_overlap_is_taken_first():
    tracker = Tracker()
    assert ids(tracker, (0, 0, 10, 10), (6, 0, 16, 10)) == [1, 2]
    # Row 0 overlaps both, the second more (9 of 11 columns, against 5 of 15), and gets it.
    assert ids(tracker, (5, 0, 15, 10), (0, 0, 9, 10)) == [2, 1]


def test_a_track_continues_in_one_instance_only():
    tracker = Tracker()
    assert ids(tracker, (0, 0, 10, 10)) == [1]
    assert ids(tracker, (0, 0, 10, 8), (0, 0, 10, 10)) == [2, 1]


def test_what_is_new_gets_a_new_id_and_what_overlaps_too_little_is_new():
    tracker = Tracker(least_iou=0.5)
    assert ids(tracker, (0, 0, 10, 10)) == [1]
    assert ids(tracker, (0, 0, 10, 5), (20, 20, 30, 30)) == [1, 2]  # exactly half is enough
    assert ids(tracker, (0, 0, 10, 2)) == [3]


def test_a_thing_that_is_hidden_for_a_while_keeps_its_id():
    tracker = Tracker(memory=3)
    assert ids(tracker, (0, 0, 10, 10)) == [1]
    for _ in range(3):
        assert ids(tracker) == []
    assert ids(tracker, (1, 0, 11, 10)) == [1]
    for _ in range(4):
        assert ids(tracker) == []
    assert ids(tracker, (1, 0, 11, 10)) == [2]


def test_boxes_decide_where_masks_do_not_meet():
    tracker = Tracker()
    assert ids(tracker, (0, 0, 10, 10), holes=True) == [1]
    assert ids(tracker, (2, 0, 12, 10), holes=True) == [1]


def test_masks_come_before_boxes():
    first, second = frame((0, 0, 20, 20), (0, 0, 20, 20)), frame((0, 0, 20, 20), (0, 0, 20, 20))
    logits = first.mask_logits.copy()
    logits[0, 10:], logits[1, :10] = -5, -5  # halves of one box: only the masks tell them apart
    tracker = Tracker()
    assert tracker.update(dataclasses.replace(first, mask_logits=logits)).tolist() == [1, 2]
    assert tracker.update(dataclasses.replace(second, mask_logits=logits[::-1])).tolist() == [2, 1]


def test_reset_never_gives_an_id_again():
    tracker = Tracker()
    assert ids(tracker, (0, 0, 10, 10), (20, 20, 30, 30)) == [1, 2]
    tracker.reset()
    assert ids(tracker, (0, 0, 10, 10)) == [3]


def test_another_grid_needs_a_reset():
    tracker = Tracker()
    ids(tracker, (0, 0, 10, 10))
    with pytest.raises(ValueError, match="masks of 64 points cannot be compared with 1600: reset first"):
        ids(tracker, (0, 0, 4, 4), side=8)
    tracker.reset()
    assert ids(tracker, (0, 0, 4, 4), side=8) == [2]


def test_what_is_kept_is_bounded():
    tracker = Tracker(memory=10_000)
    for number in range(300):
        x, y = 2 * (number % 20), 2 * (number // 20)
        ids(tracker, (x, y, x + 2, y + 2))
    assert len(tracker._tracks) == 256
    assert ids(tracker, (38, 28, 40, 30)) == [300], "the newest stay"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least_iou": 0}, "least_iou must be above 0 and at most 1, got 0"),
        ({"least_iou": 1.1}, "got 1.1"),
        ({"least_iou": float("nan")}, "got nan"),
        ({"memory": -1}, "memory must be at least 0 frames, got -1"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        Tracker(**options)


def test_run_lengths_are_refused():
    with pytest.raises(ValueError, match="tracking needs mask_logits"):
        Tracker().update(Result.from_json(frame((0, 0, 4, 4)).to_json()))
