from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sam3i_edge.errors import DataError
from sam3i_edge.measure.comparison import compare, differences, worse
from sam3i_edge.measure.schema import read_results


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(10, 10, "same"), (10, 10.1, "same"), (10, 12, "slower"), (12, 10, "faster")],
)
def test_the_verdict_minds_the_noise(
    make_row: Any, make_results: Any, before: float, after: float, verdict: str
) -> None:
    rows = compare(make_results(make_row(ms=before)), make_results(make_row(ms=after)))
    assert [row.verdict for row in rows] == [verdict]
    assert worse(rows) == (verdict == "slower")


def test_a_change_inside_noisy_samples_is_none(make_row: Any, make_results: Any) -> None:
    first, second = (make_row(ms=ms) for ms in (10, 10.8))
    wild = tuple(10 * np.random.default_rng(0).lognormal(0, 0.5, 64))
    noisy = {"end_to_end": first.latency["end_to_end"].model_copy(update={"samples": wild})}
    shifted = {
        "end_to_end": noisy["end_to_end"].model_copy(update={"samples": tuple(1.05 * v for v in wild)})
    }
    (row,) = compare(
        make_results(first.model_copy(update={"latency": noisy})),
        make_results(second.model_copy(update={"latency": shifted})),
    )
    assert row.verdict == "same"


def test_rows_of_one_side_and_rows_without_speed_are_named(make_row: Any, make_results: Any) -> None:
    a = make_results(make_row("fp32"), make_row("int8"))
    b = make_results(make_row("int4"), make_row("int8", status="disagrees", latency={}, accuracy=None))
    assert {row.name.split()[3]: row.verdict for row in compare(a, b)} == {
        "fp32": "only in A",
        "int8": "no speed",
        "int4": "only in B",
    }


def test_lost_accuracy_is_worse_even_if_it_is_faster(make_row: Any, make_results: Any) -> None:
    rows = compare(make_results(make_row(giou=0.8, ms=10)), make_results(make_row(giou=0.79, ms=5)))
    assert rows[0].verdict == "faster"
    assert rows[0].less_accurate
    assert worse(rows)


def test_doubts_and_differences_are_told(make_row: Any, make_results: Any) -> None:
    busy = make_row().before.model_copy(update={"load": 7.5})
    a = make_results(make_row(slowed=True), versions={"onnxruntime": "1.30.0"})
    other = replace(a.machine, processor="another")
    b = make_results(make_row(before=busy, stable=False), machine=other, versions={"onnxruntime": "1.31.1"})
    (row,) = compare(a, b)
    assert row.doubts == (
        "A slowed down while it was measured",
        "B was not stable after its warm-up",
        "B ran at a load above its 2 cores",
    )
    assert differences(a, b) == ["processor: a <chip> and another", "onnxruntime: 1.30.0 and 1.31.1"]


def test_results_come_back_as_they_were_written(make_row: Any, make_results: Any, tmp_path: Any) -> None:
    results = make_results(make_row(), make_row("int8"))
    results.write(tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot read"),
        ("{", "is no results.json"),
        ('{"schema_version": 1}', "of schema version 2: schema_version: must be 2, got 1"),
    ],
)
def test_files_that_are_no_results_are_refused(tmp_path: Any, content: str | None, told: str) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=told):
        read_results(path)
