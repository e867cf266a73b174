from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam3i_edge.evaluate.metrics import (
    Overlap,
    cumulative_iou,
    iou,
    mean_iou,
    overlap,
    pairwise_iou,
    precision_at,
)

# Made by the released SAM3-I evaluation scripts; masks packed by np.packbits, values in percent.
_FIXTURES = Path(__file__).parents[1] / "fixtures"
_OFFICIAL: dict[str, Any] = json.loads((_FIXTURES / "metrics.json").read_text())


def _masks(case: str, name: str) -> np.ndarray:
    with np.load(_FIXTURES / "metrics.npz") as arrays:
        height, width = arrays[f"{case}.size_hw"]
        packed = arrays[f"{case}.{name}_masks"]
    return np.unpackbits(packed, axis=1)[:, : height * width].reshape(-1, height, width).astype(bool)


def _array(name: str) -> np.ndarray:
    with np.load(_FIXTURES / "metrics.npz") as arrays:
        return np.asarray(arrays[name])


def test_one_to_one_equals_the_official_figures() -> None:
    target, predicted = _masks("one_to_one", "gt"), _masks("one_to_one", "pred")
    record_of = _array("one_to_one.pred_record")
    overlaps = [overlap(predicted[record_of == k], target[k]) for k in range(len(target))]
    want = _OFFICIAL["one_to_one"]
    np.testing.assert_allclose([o.iou() for o in overlaps], want["iou_per_record"], rtol=0, atol=1e-9)
    assert 100 * mean_iou(overlaps) == pytest.approx(want["gIoU"], abs=1e-9)
    assert 100 * cumulative_iou(overlaps) == pytest.approx(want["cIoU"], abs=1e-9)
    assert 100 * precision_at(overlaps) == pytest.approx(want["P@0.5"], abs=1e-9)


def test_nothing_found_where_nothing_is_counts_as_the_caller_says() -> None:
    nothing = np.zeros((0, 4, 5), bool)
    assert iou(nothing, nothing) == 0.0
    assert iou(nothing, nothing, empty=1.0) == 1.0
    overlaps = [Overlap(0, 0), Overlap(3, 4), Overlap(0, 9)]
    assert mean_iou(overlaps) == pytest.approx(0.25)
    assert mean_iou(overlaps, empty=1.0) == pytest.approx(1.75 / 3)
    assert precision_at(overlaps) == pytest.approx(1 / 3)
    assert precision_at(overlaps, empty=1.0) == pytest.approx(2 / 3)
    assert cumulative_iou(overlaps) == pytest.approx(3 / 13)
    assert cumulative_iou([Overlap(0, 0)]) == 0.0


def test_precision_counts_an_iou_that_equals_the_threshold() -> None:
    assert precision_at([Overlap(1, 2)], 0.5) == 1.0
    assert precision_at([Overlap(1, 2)], 0.75) == 0.0


def test_pairwise_iou_agrees_with_one_pair_at_a_time_over_many_blocks() -> None:
    rng = np.random.default_rng(0)
    predicted, target = rng.random((3, 301, 467)) < 0.4, rng.random((4, 301, 467)) < 0.6
    target[2] = False
    predicted[1] = False
    want = [[iou(p, t) for t in target] for p in predicted]
    np.testing.assert_allclose(pairwise_iou(predicted, target), want, rtol=0, atol=1e-15)
    assert want[0][0] > 0.2
    assert pairwise_iou(predicted[:0], target).shape == (0, 4)


def test_pairwise_iou_is_exact_where_float32_sums_are_not() -> None:
    # An odd number beyond 2**24 has no float32.
    full = np.ones((1, 4097, 4097), bool)
    almost = full.copy()
    almost[0, 0, :2] = False
    assert pairwise_iou(almost, full)[0, 0] == (4097**2 - 2) / 4097**2


def test_refuses_masks_that_cannot_be_compared() -> None:
    mask = np.ones((4, 5), bool)
    with pytest.raises(ValueError, match=r"4 x 5 pixels but target masks 5 x 4"):
        overlap(mask, mask.T)
    with pytest.raises(TypeError, match="float32"):
        overlap(mask.astype(np.float32), mask)
    with pytest.raises(ValueError, match=r"\(4,\)"):
        overlap(mask[:, 0], mask)
    with pytest.raises(ValueError, match="stacks"):
        pairwise_iou(mask, mask[None])


@pytest.mark.parametrize("figure", [mean_iou, cumulative_iou, precision_at])
def test_an_average_over_nothing_is_an_error(figure: Any) -> None:
    with pytest.raises(ValueError, match="give at least one"):
        figure([])
