"""The plots, by matplotlib (extra `bench`): accuracy against latency, and where the time goes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

from matplotlib import rc_context
from matplotlib.figure import Figure

from sam3i_edge.measure.pareto import Configuration, front
from sam3i_edge.measure.schema import STEPS, Row

_LARGEST = 1400  # points squared
_MARKERS = ("o", "s", "^", "D")  # one for every round of the ten colours


def pareto(
    found: Sequence[Configuration], title: str = "", time: str = "end to end, p90 of the slowest level, ms"
) -> Figure:
    """Draws accuracy against p90 latency, the files' size as area, and the Pareto front.

    Args:
        found: at least one.
        title: a line above.
        time: what the latency is of.
    """
    figure = Figure(figsize=(10.4, 4.8), layout="constrained")
    axes = figure.subplots()
    best = front(found)
    xs, ys = [one.p90_ms for one in best], [one.giou for one in best]
    axes.plot(xs, ys, "--", color="#888", drawstyle="steps-post", label="Pareto front", zorder=1)
    largest = max(one.size_bytes for one in found)
    for number, one in enumerate(found):
        axes.scatter(
            one.p90_ms,
            one.giou,
            s=_LARGEST * one.size_bytes / largest,
            color=f"C{number % 10}",
            marker=_MARKERS[number // 10 % len(_MARKERS)],
            alpha=0.6,
            label=f"{one.name}, {one.size_bytes / 1e6:.1f} MB",
            zorder=2,
        )
    axes.margins(0.2, 0.35)
    axes.set_xlabel(f"{time} (lower is better)")
    axes.set_ylabel("gIoU, mean of the levels")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    legend = axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), labelspacing=0.8)
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([60])
    return figure


def steps(rows: Sequence[Row]) -> Figure:
    """Draws the medians of each row's steps as one stacked bar a row; every row was timed."""
    figure = Figure(figsize=(10.4, 1.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [f"{row.runtime} {row.precision} {row.level}" for row in rows]
    places, ends = range(len(rows)), [0.0] * len(rows)
    for step in STEPS:
        spent = [row.latency[step].p50 for row in rows]
        axes.barh(places, spent, left=ends, height=0.65, label=step)
        ends = [end + one for end, one in zip(ends, spent, strict=True)]
    for place, end in zip(places, ends, strict=True):
        axes.annotate(f"{end:.1f}", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_xlabel("median, ms")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def drawn(figure: Figure, form: Literal["png", "svg"]) -> bytes:
    """The content of a picture file."""
    content = io.BytesIO()
    # A name may hold a dollar sign, which would begin a formula.
    with rc_context({"text.parse_math": False}):
        figure.savefig(content, format=form, dpi=130, metadata={"Date": None} if form == "svg" else None)
    return content.getvalue()
