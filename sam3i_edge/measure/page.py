"""`report.html`: one file that opens anywhere, offline, with every figure of the results."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sam3i_edge.measure import svg
from sam3i_edge.measure.cells import LATENCY, ROWS, latency_cells, peer_tables, row_cells
from sam3i_edge.measure.comparison import doubts
from sam3i_edge.measure.pareto import configurations, front, recommend
from sam3i_edge.measure.schema import STEPS, Conditions, Results

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2430; max-width: 1240px;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; margin-bottom: 1rem }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #dfe3e8; text-align: right; white-space: nowrap }
th { white-space: normal; vertical-align: bottom }
th:first-child, td:first-child, td.words { text-align: left } td.words { white-space: normal }
tr.bad { background: #fbeaec } .answer { background: #eaf4ec; padding: .7rem 1rem; border-radius: 6px }
.warn { background: #fdf3e0; padding: .7rem 1rem; border-radius: 6px }
svg { width: 100%; max-width: 760px; height: auto }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 0 2rem }
.curves h3 { font-size: .95rem; margin: .8rem 0 .2rem; overflow-wrap: anywhere }
svg text { font: 11px system-ui, sans-serif; fill: #39424e }
svg .grid { stroke: #e4e7eb } footer, .note { color: #5b6470; font-size: 13px }
"""


def html(results: Results, target_ms: float | None = None, max_mb: float | None = None) -> str:
    """The report.

    Args:
        results: what was measured.
        target_ms: limit of the recommendation, ms.
        max_mb: likewise, megabytes.
    """
    found = configurations(results.rows)
    parts = [
        "<h1>sam3i-edge benchmark</h1>",
        f"<p>{escape(_machine(results))}</p>",
        f'<p class="answer">{escape(recommend(found, target_ms, max_mb))}</p>',
        _warnings(results),
    ]
    if found:
        best = ", ".join(one.name for one in front(found))
        note = f"Up and to the left is better. Area: size of the files. On the dashed front: {escape(best)}."
        parts += ["<h2>Accuracy against latency</h2>", svg.pareto(found), f'<p class="note">{note}</p>']
    parts += [
        "<h2>Rows</h2>",
        _table(ROWS, [row_cells(row) for row in results.rows], [row.status != "ok" for row in results.rows]),
    ]
    timed = [row for row in results.rows if row.latency]
    if timed:
        medians = {
            f"{row.runtime} {row.precision} {row.level}": {step: row.latency[step].p50 for step in STEPS}
            for row in timed
        }
        parts += ["<h2>Where the time goes</h2>", svg.bars(medians)]
        cells = [latency_cells(row, step) for row in timed for step in row.latency]
        parts.append(f"<details><summary>Every step</summary>{_table(LATENCY, cells)}</details>")
    parts += [_roofline(results), _curves(results), _peers(results), _skipped(results), _footer(results)]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>sam3i-edge benchmark</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _machine(results: Results) -> str:
    here = results.machine
    memory = "" if here.memory_bytes is None else f", {here.memory_bytes / 2**30:.0f} GiB"
    features = f" with {', '.join(here.features)}" if here.features else ""
    return (
        f"{here.processor or here.architecture}{features}, {here.cores} cores{memory}, {here.system}; "
        f"{results.settings.threads} threads, budget {results.settings.budget}, {results.started.utc}"
    )


def _warnings(results: Results) -> str:
    found = [] if results.complete else ["This run was interrupted: rows are missing."]
    doubted: dict[str, list[str]] = {}
    for row in results.rows:
        name = " ".join(row.key)
        if row.problem:
            found.append(f"{name}: {row.problem}")
        for why in doubts(row, results) if row.latency else ():
            doubted.setdefault(why, []).append(name)
    timed = sum(bool(row.latency) for row in results.rows)
    for why, names in doubted.items():
        told = f"all {timed} timed rows" if len(names) == timed > 1 else ", ".join(names)
        found.append(f"Doubt the times: {why}: {told}")
    if not found:
        return ""
    return f'<div class="warn">{"<br>".join(escape(line) for line in found)}</div>'


def _roofline(results: Results) -> str:
    limits = results.roofline
    if limits is None:
        return ""
    rates = [(rate.name, f"{rate.value:,.1f}", rate.unit, rate.how) for rate in limits.rates]
    graphs = []
    for one in limits.graphs:
        share = "" if not one.achieved_ms else f"{one.possible_ms / one.achieved_ms:.0%}"
        achieved = "" if one.achieved_ms is None else f"{one.achieved_ms:.2f}"
        graphs.append(
            (f"{one.variant} {one.graph}", f"{one.operations / 1e6:,.0f}", f"{one.attention / 1e6:,.0f}",
             f"{one.integer:.0%}", f"{one.bytes / 1e6:.1f}", f"{one.possible_ms:.2f}", achieved, share)
        )  # fmt: skip
    return (
        "<h2>Limits of the machine</h2>"
        + _table(("limit", "measured", "unit", "how"), rates)
        + _table(
            ("graph", "Mop with weights", "Mop between activations", "integer", "MB moved",
             "possible ms", "achieved ms", "possible / achieved"),
            graphs,
        )
        + "".join(f'<p class="note">Left out: {escape(why)}</p>' for why in limits.left_out)
    )  # fmt: skip


def _curves(results: Results) -> str:
    if not results.curves:
        return ""
    charts = "".join(f"<div><h3>{escape(one.title)}</h3>{svg.curve(one)}</div>" for one in results.curves)
    return f'<h2>How cost grows</h2><div class="curves">{charts}</div>'


def _peers(results: Results) -> str:
    if not results.peers:
        return ""
    note = "x: how many times faster than the peer in the same turns, with the 95 % interval."
    tables = "".join(
        f"<h3>{escape(task)}</h3>{_table(header, rows)}" for task, header, rows in peer_tables(results.peers)
    )
    return f'<h2>Peers</h2><p class="note">{note}</p>{tables}'


def _skipped(results: Results) -> str:
    if not results.skipped:
        return ""
    cells = [(one.model, one.device, one.runtime, one.precision, one.reason) for one in results.skipped]
    return "<h2>Not run here</h2>" + _table(("model", "device", "runtime", "precision", "why"), cells)


def _footer(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    chosen = results.settings
    accuracy = f"data {chosen.data}" if chosen.data else f"{chosen.scenes} drawn scenes"
    lines = [
        f"{versions}; commit {results.commit or 'unknown'}",
        f"agreement on {chosen.pairs} pairs of all levels; accuracy on {accuracy}; at least "
        f"{chosen.queries} queries and {chosen.seconds:g} s a row, "
        f"pictures {chosen.picture[1]} x {chosen.picture[0]}",
        f"before: {_state(results.started)}",
    ]
    if results.finished is not None:
        lines.append(f"after: {_state(results.finished)}")
    return f"<footer><p>{'<br>'.join(escape(line) for line in lines)}</p></footer>"


def _state(state: Conditions) -> str:
    known = {
        "load": state.load,
        "degrees C": state.celsius,
        "MHz": state.megahertz,
        "governor": state.governor,
    }
    words = (
        f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in known.items()
        if value is not None
    )
    return ", ".join((state.utc, *words))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], bad: Sequence[bool] = ()) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = []
    for number, cells in enumerate(rows):
        mark = ' class="bad"' if number < len(bad) and bad[number] else ""
        words = "".join(
            f"<td{' class=words' if len(cell) > 40 else ''}>{escape(cell)}</td>" for cell in cells
        )
        lines.append(f"<tr{mark}>{words}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
