from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam3i_edge.evaluate.cgf1 import IOU_THRESHOLDS, PairMatch, cgf1, match_pair

# Made by the released SAM3-I evaluation scripts; masks packed by np.packbits.
_FIXTURES = Path(__file__).parents[1] / "fixtures"
_OFFICIAL: dict[str, Any] = json.loads((_FIXTURES / "metrics.json").read_text())

_NAMES = {
    "cgF1": "cgf1",
    "precision": "precision",
    "recall": "recall",
    "F1": "f1",
    "positive_macro_F1": "positive_macro_f1",
    "positive_micro_F1": "positive_micro_f1",
    "positive_micro_precision": "positive_micro_precision",
    "IL_precision": "il_precision",
    "IL_recall": "il_recall",
    "IL_F1": "il_f1",
    "IL_FPR": "il_fpr",
    "IL_MCC": "il_mcc",
}
_COUNTS = {
    "TPs": "true_positives",
    "FPs": "false_positives",
    "FNs": "false_negatives",
    "positive_micro_FPs": "positive_false_positives",
    "positive_micro_F1": "positive_micro_f1_at",
    "cgF1": "cgf1_at",
}


def _fixture_matches() -> list[PairMatch]:
    with np.load(_FIXTURES / "metrics.npz") as z:
        height, width = z["cgf1.size_hw"]

        def unpacked(name: str) -> np.ndarray:
            return np.unpackbits(z[name], axis=1)[:, : height * width].reshape(-1, height, width).astype(bool)

        target, predicted = unpacked("cgf1.gt_masks"), unpacked("cgf1.pred_masks")
        target_image, predicted_image = z["cgf1.gt_image"], z["cgf1.pred_image"]
        kept = z["cgf1.pred_score"] >= 0.5
        images = range(1, int(z["cgf1.num_images"]) + 1)
    return [match_pair(predicted[kept & (predicted_image == i)], target[target_image == i]) for i in images]


def test_every_official_figure_is_reproduced() -> None:
    got = cgf1(_fixture_matches())
    seen = set()
    for name, want in _OFFICIAL["cgf1"].items():
        base, _, threshold = name.partition("@")
        attribute = _NAMES[base]
        if threshold:
            values = getattr(got, f"{attribute}_at")
            value = values[IOU_THRESHOLDS.index(float(threshold))]
        else:
            value = getattr(got, attribute)
        assert value == pytest.approx(want, abs=1e-9), name
        seen.add(base)
    assert seen == set(_NAMES)
    assert set(_OFFICIAL["cgf1_per_threshold"]) == set(_COUNTS)
    for name, want in _OFFICIAL["cgf1_per_threshold"].items():
        np.testing.assert_allclose(getattr(got, _COUNTS[name]), want, rtol=0, atol=1e-9, err_msg=name)
    assert got.pairs == 8


def test_the_thresholds_are_cocos() -> None:
    np.testing.assert_allclose(IOU_THRESHOLDS, np.arange(50, 100, 5) / 100, rtol=0, atol=1e-12)


def test_the_assignment_maximises_the_sum_and_not_the_first_come() -> None:
    # Greedy would give the first prediction its best target (0.6) and leave the second with nothing.
    predicted, target = np.zeros((2, 1, 10), bool), np.zeros((2, 1, 10), bool)
    predicted[0, 0, 0:8] = True
    predicted[1, 0, 0:5] = True
    target[0, 0, 0:5] = True
    target[1, 0, 5:9] = True
    assert match_pair(predicted[:1], target) == PairMatch(2, 1, (5 / 8,))
    assert match_pair(predicted, target) == PairMatch(2, 2, (3 / 9, 1.0))


def test_no_pair_without_target_means_no_correlation_to_speak_of() -> None:
    perfect = [PairMatch(1, 1, (1.0,)), PairMatch(2, 2, (1.0, 1.0))]
    assert cgf1(perfect).il_mcc == 0.0
    assert cgf1(perfect).cgf1 == 0.0
    assert cgf1([*perfect, PairMatch(0, 0, ())]).cgf1 == pytest.approx(1.0, abs=1e-3)


def test_false_positives_on_pairs_without_target_lower_precision_but_not_positive_precision() -> None:
    found = cgf1([PairMatch(1, 1, (1.0,)), PairMatch(0, 3, ())])
    assert found.precision == pytest.approx(0.25, abs=1e-3)
    assert found.positive_micro_precision == pytest.approx(1.0, abs=1e-3)
    assert found.false_positives == (3,) * 10
    assert found.positive_false_positives == (0,) * 10


def test_plain_values_survive_json() -> None:
    values = cgf1(_fixture_matches()).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["iou_thresholds"] == list(IOU_THRESHOLDS)


def test_of_no_pairs_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        cgf1([])
