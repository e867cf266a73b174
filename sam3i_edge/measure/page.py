"""`report.html`, by Jinja2 and matplotlib (extra `bench`): one file that opens anywhere, offline."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from sam3i_edge.measure import plot
from sam3i_edge.measure.cells import LATENCY, ROWS, latency_cells, row_cells
from sam3i_edge.measure.comparison import doubts
from sam3i_edge.measure.pareto import configurations, front, recommend
from sam3i_edge.measure.schema import Conditions, Results

_TEMPLATE = Path(__file__).with_name("report.html.jinja")


def html(results: Results, target_ms: float | None = None, max_mb: float | None = None) -> str:
    """The report.

    Args:
        results: what was measured.
        target_ms: limit of the recommendation, ms.
        max_mb: likewise, megabytes (10^6 bytes).
    """
    found = configurations(results.rows)
    timed = [row for row in results.rows if row.latency]
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE.name).render(
        machine=_machine(results),
        answer=recommend(found, target_ms, max_mb),
        warnings=_warnings(results),
        pareto=_embedded(plot.pareto(found)) if found else None,
        front=", ".join(one.name for one in front(found)),
        rows_header=ROWS,
        rows=[row_cells(row) for row in results.rows],
        bad=[number for number, row in enumerate(results.rows) if row.status != "ok"],
        steps=_embedded(plot.steps(timed)) if timed else None,
        steps_header=LATENCY,
        steps_rows=[latency_cells(row, step) for row in timed for step in row.latency],
        skipped=[(one.model, one.device, one.runtime, one.precision, one.reason) for one in results.skipped],
        footer=_footer(results),
    )


def _embedded(figure: Figure) -> str:
    return f"data:image/svg+xml;base64,{b64encode(plot.drawn(figure, 'svg')).decode()}"


def _machine(results: Results) -> str:
    here = results.machine
    names = [name for name, there in here.features.items() if there]
    features = f" with {', '.join(names)}" if names else ""
    return (
        f"{here.processor or here.architecture}{features}, {here.cores} cores, "
        f"{here.memory_bytes / 2**30:.0f} GiB, {here.system}; "
        f"{results.settings.threads} threads, budget {results.settings.budget}, {results.started.utc}"
    )


def _warnings(results: Results) -> list[str]:
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
    return found


def _footer(results: Results) -> list[str]:
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
    return lines


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
