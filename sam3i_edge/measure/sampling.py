"""The clock's rules: warm up until stable, then enough queries in turn with the float row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sam3i_edge.measure.process import RowProcess
from sam3i_edge.measure.schema import END_TO_END

_BLOCK = 8
_WARM_UPS = 8  # blocks at most
_SETTLED = 0.05


@dataclass(frozen=True, slots=True)
class Samples:
    """What a row's queries took.

    Attributes:
        times: step -> ms by query.
        float_ms: end to end, the float row's queries in between; empty where there were none.
        joules: of all timed queries, or None where they cannot be read.
        warm_up: queries before; stable: whether the median of the last two blocks was within 5 %.
    """

    times: dict[str, list[float]] = field(default_factory=dict)
    float_ms: list[float] = field(default_factory=list)
    joules: float | None = None
    warm_up: int = 0
    stable: bool = False


def measure(
    process: RowProcess, reference: RowProcess | None, *, queries: int, seconds: float, most: float = 600
) -> Samples:
    """Times a row's queries in blocks of 8, in turn with the float row's.

    Args:
        process: the row, with its questions loaded.
        reference: the float row, likewise; None where the row is that one.
        queries: least number of queries.
        seconds: least time that they take together.
        most: seconds after which a row is not asked again.
    """
    warm_up, stable = _warm_up(process)
    times: dict[str, list[float]] = {}
    float_ms: list[float] = []
    joules: float | None = 0.0
    while True:
        count = min(_BLOCK, max(1, queries - len(times.get(END_TO_END, ()))))
        if reference is not None:
            float_ms += reference.timed(count)[0][END_TO_END]
        block, energy = process.timed(count)
        for step, values in block.items():
            times.setdefault(step, []).extend(values)
        joules = None if joules is None or energy is None else joules + energy
        spent = sum(times[END_TO_END]) / 1e3
        if (len(times[END_TO_END]) >= queries and spent >= seconds) or spent >= most:
            return Samples(times, float_ms, joules, warm_up, stable)


def _warm_up(process: RowProcess) -> tuple[int, bool]:
    medians: list[float] = []
    for _ in range(_WARM_UPS):
        medians.append(_median(process.timed(_BLOCK)[0][END_TO_END]))
        if len(medians) > 1 and abs(medians[-1] / medians[-2] - 1) <= _SETTLED:
            return _BLOCK * len(medians), True
    return _BLOCK * len(medians), False


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
