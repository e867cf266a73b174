from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sam3i_edge.measure.pareto import configurations, front, recommend


def test_a_configuration_is_as_slow_as_its_slowest_level_and_as_right_as_their_mean(make_row: Any) -> None:
    rows = [make_row(giou=0.9, ms=10, level="concept"), make_row(giou=0.7, ms=20, level="complex")]
    (found,) = configurations(rows)
    assert found.giou == pytest.approx(0.8)
    assert found.p90_ms == rows[1].latency["end_to_end"].p90
    assert found.levels == 2


def test_a_configuration_that_disagrees_at_one_level_is_left_out(make_row: Any) -> None:
    good, bad = make_row("int8", level="concept"), make_row("int8", status="disagrees", latency={})
    assert configurations([good, bad, make_row("fp32")])[0].name.endswith("fp32")
    assert len(configurations([good, bad, make_row("fp32")])) == 1


def test_the_front_holds_what_nothing_beats(make_row: Any) -> None:
    rows = [
        make_row("fp32", 0.80, 20),
        make_row("int8", 0.79, 10),
        make_row("int4", 0.70, 15),  # slower and less accurate than int8
        make_row("fp16", 0.80, 30),  # as accurate as fp32 and slower
    ]
    names = [one.name.split()[-1] for one in front(configurations(rows))]
    assert names == ["int8", "fp32"]


def test_the_recommendation_keeps_the_limits(make_row: Any) -> None:
    found = configurations([
        make_row("fp32", 0.800, 20, size_bytes=16_000_000),
        make_row("int8", 0.799, 10, size_bytes=5_000_000),
        make_row("int4", 0.700, 15, size_bytes=3_000_000),
    ])  # fmt: skip
    assert "int8" in recommend(found)  # as accurate within 0.002, and faster
    assert "int8" in recommend(found, target_ms=12)
    assert "int4" in recommend(found, max_mb=4)
    assert recommend(found, target_ms=12, max_mb=4).startswith(
        "Nothing fits (p90 at most 12 ms and at most 4"
    )
    assert "smallest is tiny cpu onnxruntime int4" in recommend(found, max_mb=1)
    assert recommend([]).startswith("Nothing can be recommended")


@pytest.mark.parametrize(("giou", "chosen"), [(0.7981, "int8"), (0.7979, "fp32")])
def test_a_tie_is_less_than_two_thousandths_apart(make_row: Any, giou: float, chosen: str) -> None:
    found = configurations([make_row("fp32", 0.8, 20), make_row("int8", giou, 10)])
    assert f"onnxruntime {chosen}:" in recommend(found)


def test_of_equally_fast_ones_the_front_holds_the_more_accurate(make_row: Any) -> None:
    found = configurations([make_row("int4", 0.7, 10), make_row("int8", 0.79, 10, runtime="openvino")])
    a, b = (replace(one, p90_ms=10.0) for one in found)
    assert front([a, b]) == front([b, a]) == [max(a, b, key=lambda one: one.giou)]


def test_of_equal_ones_the_front_holds_one(make_row: Any) -> None:
    (one,) = configurations([make_row()])
    assert front([one, replace(one, name="twin")]) == [one]
