from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from sam3i_edge.evaluate.cgf1 import PairMatch
from sam3i_edge.evaluate.metrics import Overlap
from sam3i_edge.evaluate.report import OVERALL, Outcome, Report, Timing, summarise
from sam3i_edge.evaluate.tables import of_report


def _outcome(
    level: Any,
    granularity: str,
    overlap: tuple[int, int],
    match: PairMatch,
    presence: float,
    used: Any = None,
) -> Outcome:
    return Outcome(
        image_id=1,
        file_name="a.png",
        instruction="x",
        level=level,
        level_used=used or level,
        granularity=granularity,
        presence=presence,
        overlap=Overlap(*overlap),
        match=match,
    )


_HIT = PairMatch(1, 1, (0.8,))
_FOUND_NOTHING = PairMatch(2, 0, ())
_RIGHTLY_SILENT = PairMatch(0, 0, ())
_WRONGLY_FOUND = PairMatch(0, 1, ())

_OUTCOMES = [
    _outcome("simple", "one", (8, 10), _HIT, 0.9),
    _outcome("simple", "subset", (0, 10), _FOUND_NOTHING, 0.6, used="concept"),
    _outcome("simple", "none", (0, 0), _RIGHTLY_SILENT, 0.1),
    _outcome("simple", "none", (0, 20), _WRONGLY_FOUND, 0.4, used="complex"),
    _outcome("complex", "one", (5, 10), _HIT, 0.3),
]


def _report(outcomes: list[Outcome] = _OUTCOMES, chose: bool = False) -> Report:
    return summarise(
        outcomes,
        threshold=0.5,
        encode_ms=[1.0, 2.0],
        instruction_ms=[float(i) for i in range(11)],
        model_chose_level=chose,
        conditions={"model": "fake"},
    )


def test_cells_hold_what_their_docstring_says() -> None:
    report = _report()
    assert [(c.level, c.granularity) for c in report.cells] == [
        ("simple", "one"),
        ("simple", "subset"),
        ("simple", "none"),
        ("simple", OVERALL),
        ("complex", "one"),
        ("complex", OVERALL),
        (OVERALL, "one"),
        (OVERALL, "subset"),
        (OVERALL, "none"),
        (OVERALL, OVERALL),
    ]
    simple = report.cell("simple")
    assert (simple.pairs, simple.pairs_with_target) == (4, 2)
    assert simple.giou == pytest.approx((0.8 + 0) / 2)
    assert simple.giou_with_none == pytest.approx((0.8 + 0 + 1 + 0) / 4)
    assert simple.ciou == pytest.approx(8 / 40)
    assert simple.p_at_50 == pytest.approx(1 / 2)
    assert simple.found_accuracy == pytest.approx(2 / 4)
    assert simple.presence_accuracy == 1.0
    assert simple.none_accuracy == pytest.approx(1 / 2)
    assert report.cell("complex").presence_accuracy == 0.0
    assert report.cell("complex").p_at_50 == 1.0
    assert report.cell().giou == pytest.approx((0.8 + 0 + 0.5) / 3)


def test_what_is_undefined_is_none_and_not_zero() -> None:
    none = _report().cell("simple", "none")
    assert (none.giou, none.ciou, none.p_at_50) == (None, None, None)
    assert none.giou_with_none == pytest.approx(0.5)
    assert _report().cell("simple", "one").none_accuracy is None


def test_an_instance_with_an_empty_mask_is_no_right_answer_to_nothing() -> None:
    cell = _report([_outcome("simple", "none", (0, 0), PairMatch(0, 1, ()), 0.2)]).cell()
    assert (cell.giou_with_none, cell.found_accuracy, cell.none_accuracy) == (0.0, 0.0, 0.0)
    assert cell.presence_accuracy == 1.0


def test_cgf1_is_by_level_and_over_all() -> None:
    report = _report()
    assert list(report.cgf1) == ["simple", "complex", OVERALL]
    assert report.cgf1["simple"].pairs == 4
    # Image level: 1 hit, 1 miss, 1 right and 1 wrong silence.
    assert report.cgf1["simple"].il_mcc == pytest.approx(0.0, abs=1e-6)
    assert report.cgf1[OVERALL].il_mcc == pytest.approx((2 * 1 - 1 * 1) / (3 * 3 * 2 * 2) ** 0.5, abs=1e-6)


def test_routing_is_reported_only_where_the_model_chose() -> None:
    assert _report().routing == {}
    assert _report().routing_accuracy is None
    chosen = _report(chose=True)
    assert chosen.routing == {"simple": {"simple": 2, "concept": 1, "complex": 1}, "complex": {"complex": 1}}
    assert chosen.routing_accuracy == pytest.approx(3 / 5)
    assert [t.title for t in of_report(chosen)][2] == "level chosen by the model"
    assert len(of_report(_report())) == 3


def test_json_is_whole_and_strict() -> None:
    report = _report(chose=True)
    data = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert data == report.to_dict()
    assert data["conditions"] == {"model": "fake"}
    assert data["images"] == 2
    assert data["cells"][2]["giou"] is None
    assert data["routing"]["accuracy"] == pytest.approx(0.6)
    assert data["timings_ms"]["instruction"] == {"count": 11, "median_ms": 5.0, "p90_ms": 9.0}
    assert data["cgf1"]["overall"]["cgf1"] == report.cgf1[OVERALL].cgf1
    assert "outcomes" not in data
    line = json.loads(json.dumps(report.outcomes[0].to_dict()))
    assert line["iou"] == 0.8
    assert line["match"]["num_predictions"] == 1


def test_timing_is_numpys() -> None:
    samples = np.random.default_rng(0).random(67).tolist()
    assert Timing.of(samples) == Timing(67, float(np.median(samples)), float(np.percentile(samples, 90)))
    with pytest.raises(ValueError, match="at least one"):
        Timing.of([])


def test_a_report_is_frozen_and_asks_for_cells_that_exist() -> None:
    report = _report()
    with pytest.raises(FrozenInstanceError):
        report.images = 3  # type: ignore[misc]
    with pytest.raises(KeyError, match="concept"):
        report.cell("concept")
    with pytest.raises(ValueError, match="no outcome"):
        _report([])
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(report, threshold=float("nan")).to_json()
