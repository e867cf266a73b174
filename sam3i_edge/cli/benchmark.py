"""`sam3i-edge benchmark`: what a model costs and gives on this machine, row by row."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sam3i_edge.cli.output import Json, note, print_json, print_table
from sam3i_edge.cli.segment import Device, Threads
from sam3i_edge.install_hint import install_hint
from sam3i_edge.levels import LEVELS, as_level

if TYPE_CHECKING:
    from rich.table import Table

    from sam3i_edge.measure.schema import Results

_INTERRUPTED = 130
# Columns of the table that fit a terminal; the report has all.
_SHOWN = (0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 14)


def benchmark(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="sam3i-nano, a bundle's folder, or a Hub id; may be given again."),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option("--precision", "-p", help="auto for every one that runs here, or one.")
    ] = "auto",
    runtime: Annotated[str, typer.Option(help="auto for every one that runs here, or one.")] = "auto",
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Only models that take pictures of so many px. [default: all]")
    ] = None,
    level: Annotated[str, typer.Option("--level", "-l", help=f"all, {', '.join(LEVELS)}.")] = "all",
    budget: Annotated[str, typer.Option(help="quick: minutes; full: 10 s and 400 pairs a row.")] = "quick",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with annotations.json and images/. [default: drawn scenes]"),
    ] = None,
    threads: Threads = None,
    target_ms: Annotated[
        float | None, typer.Option(min=0, help="Recommend within so many ms (p90, end to end).")
    ] = None,
    max_mb: Annotated[float | None, typer.Option(min=0, help="Recommend within so many MB.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("benchmark"),
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", hidden=True),
    ] = None,
    limits: Annotated[bool | None, typer.Option(hidden=True)] = None,
    curves: Annotated[bool | None, typer.Option(hidden=True)] = None,
    as_json: Json = False,
) -> None:
    """Measures every runtime and precision of a model that runs here: agreement, accuracy, speed, memory."""
    if compare is not None:
        a, b = compare
        raise ValueError(f"comparing is a verb of its own: sam3i-edge compare {a} {b}")
    if limits is not None or curves is not None:
        raise ValueError(
            "limits and curves are studies of the source tree: pytest benchmarks/test_rows.py "
            "benchmarks/test_studies.py --out FOLDER"
        )
    from sam3i_edge.bundle.folder import Bundle, find_bundle
    from sam3i_edge.data.annotations import IMAGES
    from sam3i_edge.devices.machine import usable_cores
    from sam3i_edge.files import sweep
    from sam3i_edge.measure import runner
    from sam3i_edge.measure.plan import plan
    from sam3i_edge.measure.questions import read_data
    from sam3i_edge.measure.schema import RESULTS

    # What can be refused cheaply is refused before anything runs.
    levels = LEVELS if level == "all" else (as_level(level),)
    chosen = runner.settings(budget, threads or usable_cores(), data)
    measured = None if data is None else runner.Data(read_data(data), data / IMAGES)
    bundles = [Bundle.open(find_bundle(name)) for name in model or ["sam3i-nano"]]
    rows = plan(bundles, device, precision, runtime, resolution)
    lacking = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if lacking:
        note(
            f"no report.html and no pareto.png, since {' and '.join(lacking)} is not installed: "
            f"{install_hint('bench')}, or read results.json"
        )
    out.mkdir(parents=True, exist_ok=True)
    sweep(out)
    results = runner.blank(rows, chosen)
    results.write(out / RESULTS)
    with _Shown() as shown:

        def keep(so_far: Results) -> None:
            so_far.write(out / RESULTS)
            shown.rows(so_far)

        results = runner.run(
            rows,
            results,
            data=measured,
            levels=levels,
            tell=shown.tell,
            keep=keep,
        )
    results.write(out / RESULTS)
    if not lacking:
        _report(results, out, target_ms, max_mb)
    if as_json:
        print_json(results.model_dump(mode="json"))
    else:
        _print(results, target_ms, max_mb)
    if not results.complete:
        note(f"interrupted: what was measured so far is in {out}, marked as incomplete")
        raise typer.Exit(_INTERRUPTED)
    bad = [row for row in results.rows if row.status != "ok"]
    if bad:
        note(f"{len(bad)} of {len(results.rows)} rows have no speed: {bad[0].problem}")
        raise typer.Exit(1)


def _report(results: Results, out: Path, target_ms: float | None, max_mb: float | None) -> None:
    """Writes the page and the plot."""
    from sam3i_edge.files import write_whole
    from sam3i_edge.measure import page, plot
    from sam3i_edge.measure.pareto import configurations

    write_whole(out / "report.html", page.html(results, target_ms, max_mb))
    found = configurations(results.rows)
    if not found:
        note("no plot: no configuration agrees and was timed at every level")
        return
    title = f"{results.machine.processor or results.machine.architecture}, {results.settings.threads} threads"
    figure = plot.pareto(found, title)
    write_whole(out / "pareto.png", plot.drawn(figure, "png"))
    write_whole(out / "pareto.svg", plot.drawn(figure, "svg"))


def _print(results: Results, target_ms: float | None, max_mb: float | None) -> None:
    from sam3i_edge.measure.cells import ROWS, row_cells
    from sam3i_edge.measure.pareto import configurations, recommend

    here, chosen = results.machine, results.settings
    name = here.processor or here.architecture
    title = f"{name}, {here.cores} cores, {chosen.threads} threads, budget {chosen.budget}"
    columns = [ROWS[i] if i < 2 else f"{ROWS[i]}*" for i in _SHOWN]
    cells = [row_cells(row) for row in results.rows]
    print_table(title, columns, [tuple(row[i] for i in _SHOWN) for row in cells])
    for row in results.skipped:
        typer.echo(f"not run: {row.model} {row.device} {row.runtime} {row.precision}: {row.reason}")
    typer.echo(recommend(configurations(results.rows), target_ms, max_mb))


class _Shown:
    """The table while it runs, on stderr: live on a terminal, else a line a row."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._cells: list[tuple[str, ...]] = []
        self._doing = ""

    def __enter__(self) -> _Shown:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def tell(self, text: str) -> None:
        """Shows what is being done."""
        self._doing = text
        self._refresh()

    def rows(self, results: Results) -> None:
        """Shows the rows so far."""
        from sam3i_edge.measure.cells import row_cells

        self._cells = [row_cells(row) for row in results.rows]
        if not self._console.is_terminal:
            row = results.rows[-1]
            note(f"{' '.join(row.key)}: {row.status}" + (f", {row.problem}" if row.problem else ""))
        self._refresh()

    def _refresh(self) -> None:
        if self._console.is_terminal:
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        from rich.markup import escape
        from rich.table import Table

        from sam3i_edge.measure.cells import ROWS

        table = Table(box=None, pad_edge=False, caption=escape(self._doing))
        for i in _SHOWN:
            table.add_column(escape(ROWS[i]), justify="left" if i < 2 else "right", overflow="fold")
        for row in self._cells:
            table.add_row(*(escape(row[i]) for i in _SHOWN))
        return table
