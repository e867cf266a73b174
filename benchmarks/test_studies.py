"""`pytest benchmarks/test_studies.py`: the machine's limits beside the graphs, and how cost grows.

Limits and curves are of the rows that test_rows.py measured before in the same run, and that agree.
"""

from __future__ import annotations

from typing import Any

import pytest

from studies.curves import instances_curve, row_curves
from studies.roofline import roofline
from studies.sides import sides_curves

_TURNS = {"quick": 2, "full": 5}


@pytest.fixture
def turns(pytestconfig: pytest.Config) -> int:
    return _TURNS[pytestconfig.getoption("--budget")]


def test_limits(rows: Any) -> None:
    found = roofline(rows.good(), rows.results.rows, rows.threads)
    rows.find(roofline=found)
    assert all(rate.value > 0 for rate in found.rates)
    for one in found.graphs:
        assert one.operations > 0
        assert one.possible_ms > 0


def test_instructions_and_size_of_the_picture(rows: Any, turns: int) -> None:
    good = rows.good()
    if not good:
        pytest.skip("no row was measured in this run: name test_rows.py too")
    for planned in good:
        by_count, by_size = row_curves(planned, rows.threads, turns)
        rows.find(curves=(*rows.findings.curves, by_count, by_size))
        medians = [point.p50 for point in by_count.points]
        assert medians == sorted(medians)
        assert len(by_size.points) == 4


def test_sides(rows: Any, turns: int) -> None:
    """The image encoder and the detector at other sides, where the bundle has float weights to export."""
    bundle = rows.plan.rows[0].bundle
    weights = bundle.weights()
    if weights is None:
        pytest.skip(f"{bundle.manifest.name} has no float weights to export at other sides")
    found = sides_curves(bundle.manifest.name, weights, rows.threads, turns=turns, tell=lambda _: None)
    rows.find(curves=(*rows.findings.curves, *found))
    assert all(len(curve.points) > 2 for curve in found)


def test_post_processing_by_instances(rows: Any, turns: int) -> None:
    curve = instances_curve(turns)
    rows.find(curves=(*rows.findings.curves, curve))
    assert [point.x for point in curve.points][-1] == 200
