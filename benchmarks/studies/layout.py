"""Findings as tables for the terminal, and curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from sam3i_edge.evaluate.tables import Table
from studies.findings import Curve, Peer, Roofline

_GRAPH = (
    "graph", "Mop with weights", "Mop between activations", "integer", "MB moved", "possible ms",
    "achieved ms", "possible / achieved",
)  # fmt: skip


def roofline_tables(found: Roofline) -> list[Table]:
    """The machine's limits, and each graph beside them; what was left out is the last note."""
    rates = [(rate.name, f"{rate.value:,.1f}", rate.unit, rate.how) for rate in found.rates]
    graphs = []
    for one in found.graphs:
        share = "" if not one.achieved_ms else f"{one.possible_ms / one.achieved_ms:.0%}"
        achieved = "" if one.achieved_ms is None else f"{one.achieved_ms:.2f}"
        graphs.append(
            (f"{one.variant} {one.graph}", f"{one.operations / 1e6:,.0f}", f"{one.attention / 1e6:,.0f}",
             f"{one.integer:.0%}", f"{one.bytes / 1e6:.1f}", f"{one.possible_ms:.2f}", achieved, share)
        )  # fmt: skip
    note = "\n".join(f"left out: {why}" for why in found.left_out)
    return [
        Table("limits of the machine", ("limit", "measured", "unit", "how"), tuple(rates)),
        Table("graphs beside them", _GRAPH, tuple(graphs), note=note),
    ]


def curve_table(one: Curve) -> Table:
    """The points of a curve."""
    rows = tuple((f"{point.x:g}", f"{point.p50:.1f}", f"{point.p90:.1f}") for point in one.points)
    return Table(one.title, (one.x, f"median {one.y}", f"p90 {one.y}"), rows, words=0)


def draw_curves(curves: Sequence[Curve], path: Path) -> None:
    """Draws every curve, median and p90, into one picture."""
    figure = Figure(figsize=(8, 3 * len(curves)), layout="constrained")
    for axes, one in zip(figure.subplots(len(curves), squeeze=False)[:, 0], curves, strict=True):
        xs = [point.x for point in one.points]
        axes.plot(xs, [point.p90 for point in one.points], color="0.7", label="p90")
        axes.plot(xs, [point.p50 for point in one.points], marker="o", label="median")
        axes.set_title(one.title, fontsize=10)
        axes.set(xlabel=one.x, ylabel=one.y, ylim=(0, None))
        axes.legend()
    figure.savefig(path)


def peer_tables(peers: Sequence[Peer]) -> list[Table]:
    """One table a task: a row a peer, with a column for each way of ours.

    A cell of ours holds its ms in the turns with that peer, and how many times faster that is. How the
    answers agree is the last column, or part of the title where it is the same for all.
    """
    found = []
    for task in dict.fromkeys(one.task for one in peers):
        some = [one for one in peers if one.task == task]
        ours = list(dict.fromkeys(one.ours for one in some))
        same = len({one.agreement for one in some}) == 1
        rows: list[tuple[str, ...]] = []
        for peer in dict.fromkeys(one.peer for one in some):
            own = {one.ours: one for one in some if one.peer == peer}
            first = next(iter(own.values()))
            cells = [_against(own[name]) if name in own else "" for name in ours]
            agreement = "; ".join(dict.fromkeys(one.agreement for one in own.values()))
            last = () if same else (agreement,)
            rows.append((peer, f"{first.peer_ms:,.1f}", _mib(first.peer_peak_bytes), *cells, *last))
        title = f"{task} ({some[0].agreement})" if same else task
        header = ("peer", "ms", "MiB", *ours, *(() if same else ("agreement",)))
        found.append(Table(title, header, tuple(rows), words=1))
    return found


def _against(one: Peer) -> str:
    ratio, memory = one.speedup, _mib(one.ours_peak_bytes)
    words = f"{one.ours_ms:,.1f} ms, {ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"
    return words + (f", {memory} MiB" if memory else "")


def _mib(size: int | None) -> str:
    return "" if size is None else f"{size / 2**20:,.0f}"
