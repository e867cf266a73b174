"""Rows of tiny bundles, each in a process of its own."""

from __future__ import annotations

import itertools
import shutil
from typing import Any

import pytest

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.measure import runner
from sam3i_edge.measure.plan import plan
from sam3i_edge.measure.process import RowProcess
from sam3i_edge.measure.questions import questions
from sam3i_edge.measure.schema import END_TO_END, INSTRUCTION, STEPS, Results


def _run(bundle: Bundle, **options: Any) -> Results:
    here = plan([bundle], device="cpu")
    return runner.run(
        here,
        runner.blank(here, runner.settings("quick", 1, None)),
        levels=options.pop("levels", ("simple",)),
        **options,
    )


SMALL = {"queries": 8, "seconds": 0, "pairs": 6, "starts": 1, "scenes": 2}


@pytest.fixture(scope="module")
def found(tiny_bundle: Bundle) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(runner.BUDGETS, "quick", SMALL)
        told: list[str] = []
        return _run(tiny_bundle, tell=told.append), told


def test_a_row_has_every_figure(found: Any) -> None:
    results, told = found
    assert results.complete
    (row,) = results.rows
    assert (row.status, row.problem, row.reference) == ("ok", None, True)
    assert row.agreement["mean_iou"] == 1
    assert row.accuracy.pairs > 0
    assert set(row.latency) == {*STEPS, INSTRUCTION, END_TO_END}
    assert {step.count for step in row.latency.values()} == {8}
    assert row.peak_memory_bytes > 20 << 20
    assert row.cold_start_ms[0] > row.latency[END_TO_END].p50
    assert row.throughput == pytest.approx(1000 / row.latency[END_TO_END].mean)
    assert row.warm_up >= 16
    assert row.speedup is None  # it is the float row
    assert any("agreement" in line for line in told)


def test_steps_add_up_to_less_than_the_whole(found: Any) -> None:
    (row,) = found[0].rows
    for number, whole in enumerate(row.latency[END_TO_END].samples):
        parts = [row.latency[step].samples[number] for step in STEPS]
        assert 0 < sum(parts) <= whole + 0.01
        assert row.latency[INSTRUCTION].samples[number] == pytest.approx(sum(parts[2:]), abs=0.01)


def test_a_row_that_disagrees_reports_no_speed(wrong_bundle: Bundle, small_budget: Any) -> None:
    good, bad = _run(wrong_bundle).rows
    assert good.status == "ok"
    assert bad.status == "disagrees"
    assert "disagrees with the float model: int8: 1 - " in bad.problem
    assert bad.agreement is not None
    assert (bad.latency, bad.throughput, bad.accuracy, bad.cold_start_ms) == ({}, None, None, ())


def test_a_row_whose_graph_cannot_be_opened_fails_and_the_others_run(
    wrong_bundle: Bundle, small_budget: Any
) -> None:
    here = plan([wrong_bundle], device="cpu")
    (wrong_bundle.root / "onnx-int8" / "detector.onnx").write_bytes(b"no graph")
    manifest = wrong_bundle.root / "bundle.json"
    assert manifest.is_file()
    results = runner.run(here, runner.blank(here, runner.settings("quick", 1, None)), levels=("simple",))
    # A process verifies what it opens, so the other rows run.
    assert {row.precision: row.status for row in results.rows} == {"fp32": "ok", "int8": "failed"}
    assert all("detector.onnx" in (row.problem or "") for row in results.rows if row.status == "failed")
    assert results.complete


def test_a_second_variant_is_timed_in_turn_with_the_float_row(
    tiny_bundle: Bundle, tmp_path: Any, small_budget: Any
) -> None:
    base = tiny_bundle.manifest.variants["onnx-fp32"]
    with new_bundle(tmp_path / "twice", base=tiny_bundle) as made:
        shutil.copytree(tiny_bundle.root / "onnx-fp32", made.path / "onnx-int8w")
        graphs = {name: file.replace("onnx-fp32", "onnx-int8w") for name, file in base.graphs.items()}
        made.finish(variants={"onnx-int8w": base.model_copy(update={"precision": "int8w", "graphs": graphs})})
    first, second = _run(Bundle.open(tmp_path / "twice")).rows
    assert (first.reference, second.reference) == (True, False)
    assert second.speedup.low <= second.speedup.value <= second.speedup.high
    assert 0.2 < second.speedup.value < 5  # the same graphs


def test_ctrl_c_keeps_what_was_found(
    tiny_bundle: Bundle, small_budget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, kept = runner.measure, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if kept:
            raise KeyboardInterrupt
        return measure(*arguments, **options)

    monkeypatch.setattr(runner, "measure", interrupted)
    results = _run(tiny_bundle, keep=kept.append, levels=("concept", "simple", "complex"))
    assert not results.complete
    assert [(row.level, row.status) for row in results.rows] == [("concept", "ok"), ("simple", "interrupted")]
    assert kept[0].rows == results.rows[:1]


def test_a_process_that_dies_says_how(tiny_bundle: Bundle) -> None:
    (planned,) = plan([tiny_bundle], device="cpu").rows
    with RowProcess(planned, 1) as process:
        process.start(questions("simple")[0])
        process._child.kill()
        process._child.wait()
        with pytest.raises(RuntimeUnavailable, match="was killed, most likely for want of memory"):
            process.call("peak_memory")
    with (
        RowProcess(planned, 1) as process,
        pytest.raises(RuntimeUnavailable, match=r"exit code 1: .*opened first"),
    ):
        process.call("ask", questions("simple")[0])


def test_questions_are_of_their_level_and_neighbours_show_different_pictures() -> None:
    found = questions("complex")
    assert {one.level for one in found} == {"complex"}
    assert len({(one.image.tobytes(), one.text) for one in found}) == len(found) == 32
    assert all(a.image is not b.image for a, b in itertools.pairwise(found))
