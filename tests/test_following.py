from __future__ import annotations

import numpy as np
import pytest

from sam3i_edge import Result
from sam3i_edge.following import Follower


def result(*found):
    """A result of (score, column of an 8 x 8 mask)."""
    logits = np.full((len(found), 8, 8), -1, np.float32)
    boxes = np.zeros((len(found), 4), np.float32)
    for row, (_, column) in enumerate(found):
        logits[row, :, column] = 1
        boxes[row] = (column, 0, column + 1, 8)
    return Result(
        image_size=(8, 8),
        instruction="star",
        level="concept",
        level_chosen_by="auto",
        presence=1.0,
        scores=np.array([score for score, _ in found], np.float32),
        boxes=boxes,
        mask_logits=logits,
        threshold=0.5,
        model="none",
        device="cpu",
        runtime="none",
        precision="fp32",
    )


def test_scores_are_moving_averages_of_their_tracks_best_first():
    follower = Follower(smoothing=0.75)
    first = follower.follow(result((0.9, 0), (0.6, 4)))
    assert first.scores.tolist() == pytest.approx([0.9, 0.6])
    assert first.track_ids.tolist() == [1, 2]
    second = follower.follow(result((0.8, 4), (0.5, 0)))
    assert second.track_ids.tolist() == [1, 2], "best first, by what is told"
    assert second.scores.tolist() == pytest.approx([0.25 * 0.5 + 0.75 * 0.9, 0.25 * 0.8 + 0.75 * 0.6])
    assert second.boxes[:, 0].tolist() == [0, 4]
    assert (second.mask_logits[0][:, 0] > 0).all()
    third = follower.follow(result((0.5, 0)))
    assert third.scores.tolist() == pytest.approx([0.25 * 0.5 + 0.75 * 0.8]), "of what was told, not found"


def test_a_frame_that_does_not_see_it_changes_nothing_and_long_gone_begins_anew():
    follower = Follower(smoothing=0.5)
    follower.follow(result((1.0, 0)))
    for _ in range(3):
        assert len(follower.follow(result())) == 0
    again = follower.follow(result((0.6, 0)))
    assert (again.track_ids.tolist(), again.scores.tolist()) == ([1], pytest.approx([0.8]))
    for _ in range(31):
        follower.follow(result())
    assert follower.follow(result((0.6, 0))).scores.tolist() == pytest.approx([0.6])
    assert len(follower._told) == 1


def test_without_smoothing_scores_are_the_frames_own():
    follower = Follower()
    follower.follow(result((0.9, 0)))
    assert follower.follow(result((0.6, 0))).scores.tolist() == pytest.approx([0.6])


def test_reset_forgets_scores_and_ids():
    follower = Follower(smoothing=0.5)
    follower.follow(result((1.0, 0)))
    follower.reset()
    again = follower.follow(result((0.6, 0)))
    assert (again.track_ids.tolist(), again.scores.tolist()) == ([2], pytest.approx([0.6]))


@pytest.mark.parametrize("weight", [-0.1, 1, float("nan")])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match="smoothing must be at least 0 and below 1"):
        Follower(smoothing=weight)


def test_streams_smooth(tiny_bundle):
    from sam3i_edge import Segmenter

    frames = [np.random.default_rng(n).integers(0, 256, (40, 60, 3), np.uint8) for n in range(2)]
    with Segmenter(tiny_bundle.root, threshold=0.3) as segmenter:
        plain = list(segmenter.stream(frames, "star"))
        steady = list(segmenter.stream(frames, "star", smoothing=0.5))
    scores = [dict(zip(r.track_ids.tolist(), r.scores.tolist(), strict=True)) for r in (*plain, *steady)]
    both = scores[0].keys() & scores[1].keys()
    assert both
    assert scores[2] == scores[0]
    for number in both:
        assert scores[3][number] == pytest.approx((scores[0][number] + scores[1][number]) / 2)
