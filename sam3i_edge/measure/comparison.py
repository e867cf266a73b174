"""Two runs side by side, with a verdict for each row that minds the noise of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sam3i_edge.measure.schema import END_TO_END, Ratio, Results, Row
from sam3i_edge.measure.statistics import speedup

Verdict = Literal["faster", "slower", "same", "only in A", "only in B", "no speed"]

# Smaller changes of a median come from the layout of memory and the like, however sure the interval is.
LEAST = 0.03
_ACCURACY = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One row of both runs.

    Attributes:
        name: model, device, runtime, precision, level.
        verdict: of the end-to-end latency: "faster" where B's median is at least 3 % lower and the 95 %
            interval of the quotient lies above 1.
        speedup: median of A over median of B; None where a side has no speed.
        before_ms, after_ms: medians.
        giou: difference B - A, or None.
        less_accurate: gIoU fell by more than 0.005.
        size: B's bytes over A's, or None.
        doubts: why the verdict may come from the machine.
    """

    name: str
    verdict: Verdict
    speedup: Ratio | None = None
    before_ms: float | None = None
    after_ms: float | None = None
    giou: float | None = None
    less_accurate: bool = False
    size: float | None = None
    doubts: tuple[str, ...] = ()


def compare(a: Results, b: Results) -> list[Compared]:
    """Compares rows of the same model, device, runtime, precision and level."""
    first, second = ({row.key: row for row in run.rows} for run in (a, b))
    found = []
    for key in dict.fromkeys((*first, *second)):
        name = " ".join(key)
        if key not in second:
            found.append(Compared(name=name, verdict="only in A"))
        elif key not in first:
            found.append(Compared(name=name, verdict="only in B"))
        else:
            found.append(_row(name, first[key], second[key], a, b))
    return found


def differences(a: Results, b: Results) -> list[str]:
    """What else differs between two runs: machine, threads, versions."""
    found = []
    for name in ("processor", "cores", "system"):
        before, after = getattr(a.machine, name), getattr(b.machine, name)
        if before != after:
            found.append(f"{name}: {before} and {after}")
    if a.settings.threads != b.settings.threads:
        found.append(f"threads: {a.settings.threads} and {b.settings.threads}")
    for name in sorted(a.versions.keys() | b.versions.keys()):
        if a.versions.get(name) != b.versions.get(name):
            found.append(f"{name}: {a.versions.get(name)} and {b.versions.get(name)}")
    return found


def worse(rows: Sequence[Compared]) -> bool:
    """Whether B is slower or less accurate anywhere."""
    return any(row.verdict == "slower" or row.less_accurate for row in rows)


def _row(name: str, a: Row, b: Row, run_a: Results, run_b: Results) -> Compared:
    giou = None
    if a.accuracy and b.accuracy and a.accuracy.giou is not None and b.accuracy.giou is not None:
        giou = b.accuracy.giou - a.accuracy.giou
    lost = giou is not None and giou < -_ACCURACY
    size = b.size_bytes / a.size_bytes if a.size_bytes else None
    if END_TO_END not in a.latency or END_TO_END not in b.latency:
        return Compared(name=name, verdict="no speed", giou=giou, less_accurate=lost, size=size)
    before, after = a.latency[END_TO_END], b.latency[END_TO_END]
    ratio = speedup(before.samples, after.samples)
    verdict: Verdict = "same"
    if ratio.low > 1 and ratio.value >= 1 + LEAST:
        verdict = "faster"
    elif ratio.high < 1 and ratio.value <= 1 / (1 + LEAST):
        verdict = "slower"
    return Compared(
        name=name,
        verdict=verdict,
        speedup=ratio,
        before_ms=before.p50,
        after_ms=after.p50,
        giou=giou,
        less_accurate=lost,
        size=size,
        doubts=tuple(f"{side} {why}" for side, row, run in (("A", a, run_a), ("B", b, run_b))
                     for why in doubts(row, run)),
    )  # fmt: skip


def doubts(row: Row, run: Results) -> list[str]:
    """Why a row's times may come from the machine and not from the model."""
    found = []
    if row.slowed:
        found.append("slowed down while it was measured")
    if row.stable is False:
        found.append("was not stable after its warm-up")
    load = row.before.load
    if load is not None and load > run.machine.cores + 0.5:
        found.append(f"ran at a load above its {run.machine.cores} cores")
    return found
