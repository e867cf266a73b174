"""`pytest benchmarks/test_rows.py`: every runtime x precision x level that this machine can run.

The rows of `sam3i-edge benchmark`, one a test, measured by the same code. A test fails where a row disagrees
with the float model or does not run; no time is asserted. pytest-benchmark times single queries beside, and
its JSON (`--benchmark-json FILE`) carries the row's figures as `extra_info`. With `--out FOLDER` the
results and the report are written.
"""

from __future__ import annotations

from typing import Any

from sam3i_edge.measure.process import RowProcess
from sam3i_edge.measure.questions import questions
from sam3i_edge.measure.runner import started
from sam3i_edge.measure.schema import END_TO_END

_ROUNDS = 16


def test_row(planned: Any, level: Any, rows: Any, benchmark: Any) -> None:
    row = rows.measure(planned, level, started(planned, level))
    assert row.status == "ok", row.problem
    times = row.latency[END_TO_END]
    benchmark.extra_info.update(
        {
            "p50_ms": times.p50,
            "p90_ms": times.p90,
            "p99_ms": times.p99,
            "giou": row.accuracy and row.accuracy.giou,
            "mean_iou": row.agreement["mean_iou"],
            "peak_memory_bytes": row.peak_memory_bytes,
            "size_bytes": row.size_bytes,
            "times_faster_than_float": row.speedup and row.speedup.value,
        }
    )
    with RowProcess(planned, rows.threads) as process:
        process.start(questions(level)[0])
        process.call("load", questions(level))
        benchmark.pedantic(process.timed, (1,), rounds=_ROUNDS, warmup_rounds=4)
