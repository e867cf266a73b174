"""What to choose: accuracy against latency, the rows that nothing beats, and one recommendation.

A configuration (model, device, runtime, precision) answers every level, so it stands for all of its rows: its
accuracy is the mean of their gIoU, its latency the p90 of the slowest level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sam3i_edge.measure.schema import END_TO_END, Row

# Less accuracy than this apart is no reason to choose.
_TIE = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a developer chooses.

    Attributes:
        name: model, device, runtime and precision.
        giou: mean over the levels, 0..1.
        p90_ms: end to end, of the slowest level.
        size_bytes: files of the variant.
        memory_bytes: most of the levels, or None where it is not known.
        levels: how many levels it was measured at.
    """

    name: str
    giou: float
    p90_ms: float
    size_bytes: int
    memory_bytes: int | None
    levels: int


def configurations(rows: Sequence[Row]) -> list[Configuration]:
    """The configurations all of whose rows agree and have accuracy and speed, fastest first."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key[:4], []).append(row)
    found = []
    for key, some in groups.items():
        gious = [row.accuracy.giou for row in some if row.accuracy and row.accuracy.giou is not None]
        p90s = [row.latency[END_TO_END].p90 for row in some if END_TO_END in row.latency]
        if any(row.status != "ok" for row in some) or len(gious) < len(some) or len(p90s) < len(some):
            continue
        memory = [row.peak_memory_bytes for row in some if row.peak_memory_bytes is not None]
        found.append(
            Configuration(
                name=" ".join(key),
                giou=sum(gious) / len(gious),
                p90_ms=max(p90s),
                size_bytes=max(row.size_bytes for row in some),
                memory_bytes=max(memory, default=None),
                levels=len(some),
            )
        )
    return sorted(found, key=lambda one: one.p90_ms)


def front(found: Sequence[Configuration]) -> list[Configuration]:
    """Those to which no other is at least equal in speed and accuracy and better in one; fastest first."""
    kept: list[Configuration] = []
    for one in sorted(found, key=lambda one: (one.p90_ms, -one.giou)):
        if not kept or one.giou > kept[-1].giou:
            kept.append(one)
    return kept


def recommend(
    found: Sequence[Configuration], target_ms: float | None = None, max_mb: float | None = None
) -> str:
    """One sentence: the most accurate that keeps the limits; at equal accuracy (0.002) the fastest.

    Args:
        found: from `configurations`.
        target_ms: most p90, ms.
        max_mb: most megabytes (10^6 bytes) of the variant's files.
    """
    if not found:
        return "Nothing can be recommended: no configuration agrees with the float model at every level."
    limits = [f"p90 at most {target_ms:g} ms"] if target_ms is not None else []
    limits += [f"at most {max_mb:g} MB"] if max_mb is not None else []
    words = " and ".join(limits) or "no limit given"
    fit = [
        one
        for one in found
        if (target_ms is None or one.p90_ms <= target_ms)
        and (max_mb is None or one.size_bytes <= max_mb * 1e6)
    ]
    if not fit:
        fastest, smallest = (
            min(found, key=lambda one: one.p90_ms),
            min(found, key=lambda one: one.size_bytes),
        )
        return (
            f"Nothing fits ({words}): the fastest is {described(fastest)}; "
            f"the smallest is {described(smallest)}."
        )
    best = max(one.giou for one in fit)
    chosen = min((one for one in fit if one.giou >= best - _TIE), key=lambda one: one.p90_ms)
    return f"Take {described(chosen)} ({words})."


def described(one: Configuration) -> str:
    """Its name and figures in a clause."""
    return f"{one.name}: gIoU {one.giou:.3f}, p90 {one.p90_ms:.1f} ms, {one.size_bytes / 1e6:.1f} MB"
