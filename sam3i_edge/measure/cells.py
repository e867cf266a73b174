"""Rows as cells of text, the same for the terminal, the report and the tests' table."""

from __future__ import annotations

from collections.abc import Sequence

from sam3i_edge.measure.comparison import Compared
from sam3i_edge.measure.schema import END_TO_END, Row

ROWS = (
    "row", "status", "IoU mean", "IoU min", "gIoU", "P@0.5", "presence", "p50 ms", "p90 ms", "p99 ms",
    "vs float", "cold ms", "q/s", "peak MiB", "MB", "J/query",
)  # fmt: skip
LATENCY = ("row", "step", "count", "p50 ms", "p90 ms", "p99 ms", "mean ms", "variation")


def row_cells(row: Row) -> tuple[str, ...]:
    """Cells under `ROWS`; empty where there is no figure."""
    agreement, accuracy = row.agreement or {}, row.accuracy
    times = row.latency.get(END_TO_END)
    faster = "float" if row.reference else "" if row.speedup is None else f"{row.speedup.value:.2f}x"
    cold = sorted(row.cold_start_ms)
    return (
        f"{row.model} {row.device} {row.runtime} {row.precision} {row.level}",
        row.status + (" (slowed)" if row.slowed else ""),
        _figure(agreement.get("mean_iou"), 4),
        _figure(agreement.get("min_iou"), 3),
        _figure(accuracy.giou if accuracy else None, 3),
        _figure(accuracy.p_at_50 if accuracy else None, 3),
        _figure(accuracy.presence if accuracy else None, 3),
        _figure(times.p50 if times else None, 1),
        _figure(times.p90 if times else None, 1),
        _figure(times.p99 if times else None, 1),
        faster,
        _figure(cold[len(cold) // 2] if cold else None, 0),
        _figure(row.throughput, 1),
        _figure(None if row.peak_memory_bytes is None else row.peak_memory_bytes / 2**20, 0),
        _figure(row.size_bytes / 1e6, 1),
        _figure(row.joules, 2),
    )


def latency_cells(row: Row, step: str) -> tuple[str, ...]:
    """Cells under `LATENCY` of one step."""
    times = row.latency[step]
    figures = (f"{value:.2f}" for value in (times.p50, times.p90, times.p99, times.mean))
    name = f"{row.runtime} {row.precision} {row.level}"
    return name, step, str(times.count), *figures, f"{times.variation:.0%}"


COMPARED = ("row", "verdict", "A ms", "B ms", "times faster", "95 %", "gIoU", "size", "doubts")


def compared_cells(rows: Sequence[Compared]) -> list[tuple[str, ...]]:
    """Cells under `COMPARED`."""
    found: list[tuple[str, ...]] = []
    for row in rows:
        ratio = row.speedup
        found.append(
            (
                row.name,
                row.verdict + (", less accurate" if row.less_accurate else ""),
                _figure(row.before_ms, 2),
                _figure(row.after_ms, 2),
                _figure(ratio.value if ratio else None, 3),
                f"{ratio.low:.3f} to {ratio.high:.3f}" if ratio else "",
                "" if row.giou is None else f"{row.giou:+.3f}",
                "" if row.size is None else f"{row.size:.2f}x",
                "; ".join(row.doubts),
            )
        )
    return found


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
