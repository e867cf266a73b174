"""Selection and mask resize, against what the official code returned.

`fixtures/postprocess.npz`: level simple, prompt 0 of the official numbers: 20 queries, mask logits of six,
and, at threshold 0.443, kept boxes, scores and packed masks (301 x 247) of five of the six, which were kept.
"""

from pathlib import Path

import numpy as np
import pytest

from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.pipeline.postprocess import pixel_boxes, resize_mask_logits, select, sigmoid

FIXTURE = Path(__file__).parents[1] / "fixtures" / "postprocess.npz"
SIZE = (301, 247)


@pytest.fixture(scope="module")
def official():
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


@pytest.fixture
def outputs(official):
    """The detector's outputs, best first, as the graph gives them."""
    logits, presence = official["pred_logits"], float(official["presence_logit"][0])
    scores = (1 / (1 + np.exp(-logits)) / (1 + np.exp(-presence))).astype(np.float32)
    centre, half = official["pred_boxes_cxcywh"][:, :2], official["pred_boxes_cxcywh"][:, 2:] / 2
    masks = np.zeros((20, 64, 64), np.float32)
    masks[official["mask_query_index"]] = official["pred_masks"]
    order = np.argsort(-scores)
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    return order, (scores[order], boxes[order], masks[order], presence)


def test_the_official_queries_are_kept_with_their_scores_and_boxes(official, outputs):
    order, arrays = outputs
    kept = select(*arrays, SIZE, threshold=0.443)
    queries = order[kept.index]
    assert sorted(queries) == official["post.query_index"].tolist()
    assert not kept.truncated
    assert (np.diff(kept.scores) <= 0).all()
    wanted = np.searchsorted(official["post.query_index"], queries)
    np.testing.assert_allclose(kept.scores, official["post.scores"][wanted], atol=2e-5)
    unclipped = official["post.boxes_xyxy_px"][wanted]
    np.testing.assert_allclose(pixel_boxes(arrays[1][kept.index], SIZE, clip=False), unclipped, atol=5e-3)
    np.testing.assert_allclose(kept.boxes, np.clip(unclipped, 0, [247, 301, 247, 301]), atol=5e-3)
    np.testing.assert_array_equal(kept.mask_logits, arrays[2][kept.index])
    assert kept.presence == pytest.approx(1 / (1 + np.exp(-official["presence_logit"][0])))


def test_masks_are_the_official_ones(official):
    kept = np.isin(official["mask_query_index"], official["post.query_index"])
    masks = resize_mask_logits(official["pred_masks"][kept], SIZE)
    packed = official["post.masks_packed"]
    want = np.unpackbits(packed, axis=1)[:, : SIZE[0] * SIZE[1]].reshape(-1, *SIZE).astype(bool)
    assert masks.shape == want.shape == (5, *SIZE)
    assert want.any(axis=(1, 2)).all()
    assert (masks != want).mean() <= 1e-4


@pytest.mark.parametrize("size", [(5, 7), (64, 64), (13, 200), (200, 3), (1, 1)])
def test_resize_is_bilinear_with_half_pixel_centres(size):
    import torch

    logits = np.random.default_rng(3).normal(size=(4, 32, 24)).astype(np.float32)
    want = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear")[0].numpy()
    got = resize_mask_logits(logits, size)
    assert (got == (want > 0))[np.abs(want) > 1e-5].all()


def test_blocks_do_not_show(monkeypatch):
    logits = np.random.default_rng(4).normal(size=(2, 9, 11)).astype(np.float32)
    whole = resize_mask_logits(logits, (100, 30))
    monkeypatch.setattr("sam3i_edge.pipeline.postprocess._BLOCK_PIXELS", 77)
    np.testing.assert_array_equal(resize_mask_logits(logits, (100, 30)), whole)


def test_threshold_is_a_logit():
    logits = np.array([[[-1.0, 0.5, 0.5, 2.0]]], np.float32)
    assert resize_mask_logits(logits, (1, 4)).tolist() == [[[False, True, True, True]]]
    assert resize_mask_logits(logits, (1, 4), threshold=0.5).tolist() == [[[False, False, False, True]]]


def test_resize_refuses():
    with pytest.raises(ValueError, match=r"float32 \[N, h, w\], got float64 \[1, 2, 2\]"):
        resize_mask_logits(np.zeros((1, 2, 2)), (4, 4))
    with pytest.raises(ValueError, match="at least 1 x 1"):
        resize_mask_logits(np.zeros((1, 2, 2), np.float32), (0, 4))
    with pytest.raises(ValueError, match="finite"):
        resize_mask_logits(np.full((1, 2, 2), np.nan, np.float32), (4, 4))
    assert resize_mask_logits(np.zeros((0, 2, 2), np.float32), (4, 5)).shape == (0, 4, 5)


def _detector(scores, count=None):
    scores = np.asarray(scores, np.float32)
    count = len(scores) if count is None else count
    boxes = np.tile(np.array([-0.1, 0.25, 0.5, 1.2], np.float32), (count, 1))
    return scores, boxes, np.ones((count, 4, 4), np.float32)


def test_a_score_at_the_threshold_is_not_kept():
    kept = select(*_detector([0.9, 0.5, 0.25]), 2.0, (20, 10), threshold=0.5)
    assert kept.scores.tolist() == [np.float32(0.9)]
    assert kept.boxes.tolist() == [[0, 5, 5, 20]]
    assert kept.presence == pytest.approx(sigmoid(2.0))


def test_nothing_is_a_normal_answer():
    kept = select(*_detector([0.2, 0.1]), -3.0, (20, 10))
    assert (kept.boxes.shape, kept.mask_logits.shape, kept.truncated) == ((0, 4), (0, 4, 4), False)
    assert not select(*_detector([]), 0.0, (20, 10)).truncated


def test_all_queries_passing_is_reported():
    assert select(*_detector([0.9, 0.8]), 0.0, (9, 9)).truncated
    assert not select(*_detector([0.9, 0.3]), 0.0, (9, 9)).truncated


def _rows(*lengths):
    """Masks of one row of 10 pixels, set from the left."""
    return np.where(np.arange(10) < np.array(lengths)[:, None], 1.0, -1.0).astype(np.float32)[:, None]


@pytest.mark.parametrize(
    ("most", "kept"),
    [(None, [1, 2, 3, 0]), (0.9, [1, 2, 3, 0]), (0.8, [1, 2, 0]), (0.5, [1, 0]), (0, [1, 0])],
)
def test_what_overlaps_a_better_one_is_dropped_when_asked(most, kept):
    """IoU with the best, 10 long: .8 and .9; of these two with each other .89; an empty mask has none."""
    scores = np.array([0.6, 0.9, 0.8, 0.7], np.float32)
    boxes = np.tile(np.float32([0, 0, 1, 1]), (4, 1))
    found = select(scores, boxes, _rows(0, 10, 8, 9), 1.0, SIZE, threshold=0.5, suppress=most)
    assert found.index.tolist() == kept
    np.testing.assert_array_equal(found.scores, scores[kept])
    assert len(found.boxes) == len(found.mask_logits) == len(kept)
    assert found.truncated  # every query passed, whatever was dropped after


def test_where_nothing_passes_nothing_is_suppressed():
    found = select(np.float32([0.4]), np.zeros((1, 4), np.float32), _rows(5), 1.0, SIZE, suppress=0.7)
    assert (len(found.index), found.mask_logits.shape) == (0, (0, 1, 10))


def test_what_was_dropped_suppresses_nothing():
    """The second is dropped for the first; the third overlaps the second alone."""
    scores, boxes = np.array([0.9, 0.8, 0.7], np.float32), np.zeros((3, 4), np.float32)
    found = select(scores, boxes, _rows(10, 7, 5), 1.0, SIZE, threshold=0.5, suppress=0.6)
    assert found.index.tolist() == [0, 2]


@pytest.mark.parametrize("most", [-0.1, 1.1, float("nan")])
def test_a_share_of_overlap_is_0_to_1(most):
    with pytest.raises(ValueError, match="suppress must be 0 to 1"):
        select(np.zeros(1), np.zeros((1, 4)), np.zeros((1, 2, 2)), 1.0, SIZE, suppress=most)


def test_the_mask_threshold_is_subtracted_and_fp16_becomes_fp32():
    scores, boxes, masks = _detector([0.9, 0.3])
    kept = select(
        scores, boxes.astype(np.float16), masks.astype(np.float16), 0.0, (9, 9), mask_threshold=0.75
    )
    assert kept.mask_logits.dtype == kept.boxes.dtype == np.float32
    assert (kept.mask_logits == 0.25).all()


def test_what_is_kept_does_not_follow_the_buffer():
    scores, boxes, masks = _detector([0.9, 0.3])
    kept = select(scores, boxes, masks, 0.0, (9, 9))
    masks[:] = scores[:] = boxes[:] = 7
    assert kept.mask_logits.max() == 1
    assert kept.scores[0] == np.float32(0.9)
    with pytest.raises(ValueError, match="read-only"):
        kept.mask_logits[0] = 0


def test_outputs_that_are_no_numbers_are_an_error_not_an_empty_answer():
    for position, name in enumerate(("scores", "boxes", "mask_logits")):
        arrays = _detector([0.9, 0.8])
        arrays[position][0] = np.nan
        with pytest.raises(RuntimeUnavailable, match=rf"{name} that are NaN.*precision='fp32'"):
            select(*arrays, 0.0, (9, 9))
    with pytest.raises(RuntimeUnavailable, match="presence"):
        select(*_detector([0.9]), np.inf, (9, 9))
    scores, boxes, masks = _detector([0.9, 0.8])
    masks[1] = -3e38  # whoever draws the mask would refuse it, long after the answer
    with pytest.raises(RuntimeUnavailable, match=r"mask_logits that are NaN, infinite or beyond 1e\+30"):
        select(scores, boxes, masks, 0.0, (9, 9))


def test_select_refuses_other_shapes():
    scores, boxes, masks = _detector([0.9, 0.8])
    with pytest.raises(ValueError, match="element 0 of the batch"):
        select(scores[None], boxes[None], masks[None], 0.0, (9, 9))
    with pytest.raises(ValueError, match="element 0 of the batch"):
        select(scores, boxes[:1], masks, 0.0, (9, 9))
    with pytest.raises(ValueError, match=r"threshold must be 0 to 1, got 1\.5"):
        select(scores, boxes, masks, 0.0, (9, 9), threshold=1.5)


def test_sigmoid_does_not_overflow():
    assert sigmoid(-1e4) == 0.0
    assert sigmoid(1e4) == 1.0
    assert sigmoid(0.0) == 0.5
    assert sigmoid(-2.0) == pytest.approx(0.11920292202211755, rel=1e-12)
