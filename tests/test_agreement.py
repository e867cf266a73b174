from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sam3i_edge.agreement import LIMITS, Instances, check, compare, drawn_pairs, pair_quality, quality
from sam3i_edge.errors import ExportError, ParityError
from sam3i_edge.levels import LEVELS
from sam3i_edge.masks.iou import mask_iou


def _instances(*corners: tuple[int, int, int, int], scores: list[float] | None = None) -> Instances:
    masks = np.zeros((len(corners), 60, 80), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, corners, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances(
        scores=np.array(scores or [0.9] * len(corners), np.float32),
        boxes=np.array(corners, np.float32).reshape(-1, 4),
        masks=masks,
    )


TWO = _instances((0, 0, 20, 20), (40, 10, 70, 40), scores=[0.9, 0.8])
NONE = _instances()


def test_equal_results_pass_every_gate():
    agreement = compare([TWO, NONE], [TWO, NONE])
    assert (agreement.pairs, agreement.none, agreement.instances) == (2, 1, 2)
    assert agreement.mean_iou == agreement.min_iou == agreement.same_count == 1.0
    for precision in ("fp32", "fp16", "int8", "int4"):
        check(agreement, precision)


def test_instances_are_matched_by_mask_and_not_by_rank():
    swapped = Instances(scores=TWO.scores[::-1], boxes=TWO.boxes[::-1], masks=TWO.masks[::-1])
    agreement = compare([TWO], [swapped])
    assert agreement.min_iou == 1.0
    assert agreement.score == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("candidate", "complaint"),
    [
        (_instances((0, 0, 20, 20)), "same_count"),
        (_instances((0, 0, 20, 19), (40, 10, 70, 40)), "mean_iou"),
        (replace(TWO, scores=TWO.scores - np.float32(0.01)), "score"),
        (replace(TWO, boxes=TWO.boxes + np.float32(0.6)), "box_px"),
    ],
    ids=["count", "mask", "score", "box"],
)
def test_each_difference_fails_the_fp32_gate(candidate, complaint):
    with pytest.raises(ParityError, match=complaint):
        check(compare([TWO], [candidate]), "fp32")


def test_one_bad_mask_fails_the_minimum():
    worst = _instances((0, 0, 20, 14), (40, 10, 70, 40))
    agreement = compare([TWO] * 60, [TWO] * 59 + [worst])
    assert agreement.mean_iou > 0.99
    with pytest.raises(ParityError, match="min_iou"):
        check(agreement, "int8")


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (replace(TWO, scores=TWO.scores - np.float32([0, 0.2])), "score"),
        (replace(TWO, boxes=TWO.boxes + np.float32([[0], [5]])), "box_px"),
    ],
    ids=["score", "box"],
)
def test_quantized_precisions_pass_by_99_percent_and_float_ones_by_all(changed, complaint):
    """One instance of 200, then 5 of 200, is far off; what is reported is always the largest too."""
    few = compare([TWO] * 100, [TWO] * 99 + [changed])
    many = compare([TWO] * 100, [TWO] * 95 + [changed] * 5)
    for agreement in (few, many):
        assert getattr(agreement, complaint) == pytest.approx(0.2 if complaint == "score" else 5)
    assert getattr(few, f"{complaint}_p99") == pytest.approx(0.0, abs=1e-6)
    assert getattr(many, f"{complaint}_p99") > 0.19
    for precision in ("int8", "int8w", "mixed"):
        check(few, precision)
        with pytest.raises(ParityError, match=f"{precision}: {complaint}_p99"):
            check(many, precision)
    for precision in ("fp32", "fp16"):
        with pytest.raises(ParityError, match=f"{precision}: {complaint}: "):
            check(few, precision)
    check(many, "int4")  # reported there, and no more


def test_one_side_of_one_box_is_enough():
    moved = replace(TWO, boxes=TWO.boxes + np.float32([[0, 0, 0, 0], [0, 0, 0.75, 0]]))
    agreement = compare([TWO], [moved])
    assert agreement.box_px == 0.75
    with pytest.raises(ParityError, match="fp32: box_px: "):
        check(agreement, "fp32")


_INT8 = {"same_count": 0.98, "mean_iou": 0.98, "min_iou": 0.85, "score_p99": 0.05, "box_px_p99": 2.0}
# same_count, mean_iou and min_iou at least; score and box_px at most, of all or, quantized, of 99 in 100.
KEPT = {
    "fp32": {"same_count": 1.0, "mean_iou": 0.9999, "min_iou": 0.995, "score": 0.001, "box_px": 0.5},
    "fp16": {"same_count": 0.99, "mean_iou": 0.99, "min_iou": 0.95, "score": 0.01, "box_px": 1.0},
    "int8": _INT8,
    "int8w": _INT8,
    "mixed": _INT8,
    "int8-bf16": _INT8,
    "mixed-bf16": _INT8,
    "int4": {"same_count": 0.95, "mean_iou": 0.95, "min_iou": 0.70},
}
LOWER = ("same_count", "mean_iou", "min_iou")


def test_every_precision_is_limited():
    assert LIMITS.keys() == KEPT.keys()


@pytest.mark.parametrize(
    ("precision", "name"), [(precision, name) for precision, kept in KEPT.items() for name in kept]
)
def test_a_limit_is_kept_to_the_last_digit(precision, name):
    at = replace(compare([TWO], [TWO]), **KEPT[precision])
    check(at, precision)
    worse = np.nextafter(KEPT[precision][name], 0 if name in LOWER else 9)
    with pytest.raises(ParityError, match=name):
        check(replace(at, **{name: float(worse)}), precision)


@pytest.mark.parametrize("precision", KEPT)
def test_what_is_not_limited_is_only_reported(precision):
    free = {"score", "box_px", "score_p99", "box_px_p99"} - KEPT[precision].keys()
    check(replace(compare([TWO], [TWO]), **dict.fromkeys(free, 100.0), small_min_iou=0.0), precision)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="no agreement limits for precision 'int3'; known: fp32"):
        check(compare([TWO], [TWO]), "int3")


def test_quality_falls_with_lost_instances_and_with_worse_masks():
    half = _instances((0, 0, 20, 10), (40, 10, 70, 40))
    one = _instances((0, 0, 20, 20))
    assert pair_quality(TWO, TWO) == pair_quality(NONE, NONE) == 1.0
    assert pair_quality(TWO, half) == pytest.approx(0.75)
    assert pair_quality(TWO, one) == pair_quality(one, TWO) == pytest.approx(0.5)
    assert pair_quality(TWO, NONE) == pair_quality(NONE, TWO) == 0.0
    assert quality([TWO, TWO, NONE], [TWO, one, NONE]) == pytest.approx(2.5 / 3)


def test_small_instances_are_reported_apart():
    small = _instances((0, 0, 7, 7), (20, 20, 50, 50))
    shrunk = _instances((0, 0, 7, 4), (20, 20, 50, 50))
    agreement = compare([small], [shrunk])
    assert (agreement.instances, agreement.small_instances) == (1, 1)
    assert agreement.min_iou == 1.0
    assert agreement.small_min_iou == pytest.approx(4 / 7)


def test_a_gate_over_nothing_is_an_error():
    with pytest.raises(ExportError, match="kept no instance"):
        compare([NONE, NONE], [NONE, NONE])


def test_iou_by_hand():
    a, b = _instances((0, 0, 10, 10)).masks, _instances((5, 0, 15, 10), (0, 0, 10, 10)).masks
    np.testing.assert_allclose(mask_iou(a, b, empty=1.0), [[50 / 150, 1.0]])


def test_gate_pairs_cover_levels_and_have_nothing_to_find_often_enough():
    pairs = drawn_pairs(60)
    assert len(pairs) == 60
    assert {p.level for p in pairs} == set(LEVELS)
    assert {p.granularity for p in pairs} == {"one", "subset", "all", "none"}
    assert sum(p.granularity == "none" for p in pairs) >= 0.15 * len(pairs)
    assert [p.text for p in pairs] == [p.text for p in drawn_pairs(60)]
    assert len({id(p.image) for p in pairs}) < 40  # several instructions an image
