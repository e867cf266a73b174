"""`pytest benchmarks/`: times the SDK on the machine at hand and prints a table. No time is asserted.

With `--out FOLDER` the rows go to results.json, report.html and pareto.png, as `sam3i-edge benchmark` writes
them, and what the studies find to findings.json and curves.png. With `--save-results` the times of
test_segment.py go to benchmarks/results/<machine>.json, with what they were measured on: figures in the
documentation come from such files.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import pytest

import sam3i_edge
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.data.annotations import IMAGES
from sam3i_edge.devices import machine
from sam3i_edge.errors import Sam3iError
from sam3i_edge.evaluate.report import Timing
from sam3i_edge.evaluate.tables import Table, timings
from sam3i_edge.files import write_whole
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.measure import conditions, plot, runner
from sam3i_edge.measure.cells import ROWS, row_cells
from sam3i_edge.measure.page import html
from sam3i_edge.measure.pareto import configurations, recommend
from sam3i_edge.measure.plan import Plan, Planned, plan
from sam3i_edge.measure.questions import read_data
from sam3i_edge.measure.runner import BUDGETS, Bench
from sam3i_edge.measure.schema import RESULTS, Results, Row
from studies.findings import Findings
from studies.layout import curve_table, draw_curves, peer_tables, roofline_tables

# Fewer say little about the slowest tenth.
LEAST_QUERIES_SAVED = 64
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """What to measure with; recorded beside the figures."""

    model: str
    device: str
    threads: int
    queries: int
    processes: int


@dataclass
class Measurements:
    """Times of the steps measured so far, and what they ran on."""

    settings: Options
    steps: dict[str, Timing] = field(default_factory=dict)
    ran_on: dict[str, str | int | float] = field(default_factory=dict)
    load_before: Sequence[float] = ()

    def add(self, step: str, samples_ms: Sequence[float]) -> None:
        """Keeps the median and p90 of one step, named in words."""
        self.steps[step] = Timing.of(samples_ms)


_MEASUREMENTS = pytest.StashKey[Measurements]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sam3i-edge benchmarks")
    group.addoption("--model", default="sam3i-nano", help="bundled name, folder or Hub id (sam3i-nano)")
    group.addoption("--device", default="auto", help="device profile (auto)")
    group.addoption("--threads", type=int, default=2, help="threads of the runtime (2)")
    group.addoption("--queries", type=int, default=LEAST_QUERIES_SAVED, help="queries of each step (64)")
    group.addoption("--processes", type=int, default=20, help="fresh processes of each cold start (20)")
    group.addoption("--precision", default="auto", help="rows of one precision (all that run here)")
    group.addoption("--runtime", default="auto", help="rows of one runtime (all that run here)")
    group.addoption("--resolution", type=int, help="rows of models with this side, px (all)")
    group.addoption("--budget", default="quick", choices=sorted(BUDGETS), help="of a row (quick)")
    group.addoption("--data", type=Path, help="folder with annotations.json and images/ (drawn scenes)")
    group.addoption("--out", type=Path, help="folder for results.json, report.html and the plot")
    group.addoption("--official", type=Path, help="folder of peers/official_graphs.py (skipped)")
    group.addoption("--sides", default="336,1008", help="sides of the official size, px (336,1008)")
    group.addoption("--save-results", action="store_true", help="write benchmarks/results/<machine>.json")


def pytest_configure(config: pytest.Config) -> None:
    option = config.getoption
    settings = Options(
        option("--model"), option("--device"), option("--threads"), option("--queries"), option("--processes")
    )
    if min(settings.threads, settings.queries, settings.processes) < 1:
        raise pytest.UsageError("--threads, --queries and --processes must each be at least 1")
    if option("--save-results") and settings.queries < LEAST_QUERIES_SAVED:
        raise pytest.UsageError(
            f"--save-results wants at least {LEAST_QUERIES_SAVED} queries, got --queries {settings.queries}"
        )
    config.stash[_MEASUREMENTS] = Measurements(settings, load_before=psutil.getloadavg())


@dataclass
class Rows:
    """The rows measured so far, and what the studies found; `plan` is what runs here."""

    plan: Plan
    results: Results
    findings: Findings
    make_bench: Callable[[], Bench]
    threads: int

    @functools.cached_property
    def bench(self) -> Bench:
        """What measures, made with the scenes that it needs when the first row is."""
        return self.make_bench()

    def measure(self, planned: Planned, level: Level, row: Row) -> Row:
        """Measures a row and keeps it; one that Ctrl-C cuts off is kept as such."""
        try:
            done = self.bench.row(planned, level, row)
        except KeyboardInterrupt:
            cut = {"status": "interrupted", "problem": "interrupted by Ctrl-C", "after": conditions.now()}
            self.add(rows=(*self.results.rows, row.model_copy(update=cut)))
            raise
        self.add(rows=(*self.results.rows, done))
        return done

    def good(self) -> list[Planned]:
        """The configurations that agree with the float model at every level measured."""
        bad = {row.key[:4] for row in self.results.rows if row.status != "ok"}
        measured = {row.key[:4] for row in self.results.rows} - bad
        return [planned for planned in self.plan.rows if planned.key in measured]

    def add(self, **found: object) -> None:
        """Keeps further parts of the results."""
        self.results = self.results.model_copy(update=found)

    def find(self, **found: object) -> None:
        """Keeps further findings."""
        self.findings = self.findings.model_copy(update=found)


_ROWS = pytest.StashKey[Rows]()
_PLAN = pytest.StashKey[Plan]()


def _plan(config: pytest.Config) -> Plan:
    """What runs here, found out once."""
    if _PLAN not in config.stash:
        option = config.getoption
        bundle = Bundle.open(find_bundle(option("--model")))
        wanted = [option(f"--{name}") for name in ("device", "precision", "runtime", "resolution")]
        config.stash[_PLAN] = plan([bundle], *wanted)
    return config.stash[_PLAN]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuses a model, device or data set that cannot be measured before anything is collected."""
    data = session.config.getoption("--data")
    try:
        _plan(session.config)
        if data is not None:
            read_data(data)
    except (Sam3iError, ValueError) as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"planned", "level"} <= set(metafunc.fixturenames):
        rows = _plan(metafunc.config).rows
        cases = [(planned, level) for planned in rows for level in LEVELS if level in planned.levels]
        names = [f"{planned.name}/{level}" for planned, level in cases]
        metafunc.parametrize(("planned", "level"), cases, ids=names)


@pytest.fixture(scope="session")
def rows(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    option = pytestconfig.getoption
    here, threads = _plan(pytestconfig), option("--threads")
    chosen = runner.settings(option("--budget"), threads, option("--data"))
    folder = option("--data")

    def make() -> Bench:
        if folder is not None:
            data = runner.Data(read_data(folder), folder / IMAGES)
        else:
            data = runner.drawn(chosen.scenes, tmp_path_factory.mktemp("scenes") / "drawn")
        return Bench(here, chosen, data, lambda _: None)

    blank = runner.blank(here, chosen)
    findings = Findings(
        machine=blank.machine,
        versions=blank.versions,
        commit=blank.commit,
        threads=threads,
        started=blank.started,
    )
    found = Rows(here, blank, findings, make, threads)
    pytestconfig.stash[_ROWS] = found
    yield found
    if "bench" in vars(found):
        found.bench.close()


@pytest.fixture(scope="session")
def measurements(pytestconfig: pytest.Config) -> Measurements:
    return pytestconfig.stash[_MEASUREMENTS]


@pytest.fixture(scope="session")
def settings(measurements: Measurements) -> Options:
    return measurements.settings


@pytest.fixture(scope="session")
def child_environment() -> dict[str, str]:
    """Environment of a fresh process that imports this very package, installed or not."""
    root = str(Path(sam3i_edge.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    if _ROWS in config.stash:
        _show_rows(terminalreporter, config.stash[_ROWS], exitstatus == 0, config.getoption("--out"))
    taken = config.stash[_MEASUREMENTS]
    if not taken.steps:
        return
    found = _described(taken)
    terminalreporter.section("sam3i-edge")
    for key in ("machine", "versions", "ran_on", "settings"):
        part = ", ".join(f"{name} {value}" for name, value in found[key].items())
        terminalreporter.write_line(f"{key}: {part}")
    terminalreporter.write_line(f"commit: {found['measured']['commit']}\n")
    terminalreporter.write_line(timings(taken.steps).plain())
    if config.getoption("--save-results"):
        if exitstatus != 0 or terminalreporter.stats.get("deselected"):
            terminalreporter.write_line("not saved: a benchmark failed or was left out", red=True)
            return
        terminalreporter.write_line(f"saved {_save(found)}")


def _show_rows(
    terminalreporter: pytest.TerminalReporter, found: Rows, complete: bool, out: Path | None
) -> None:
    results = found.results.model_copy(update={"complete": complete, "finished": conditions.now()})
    if results.rows:
        cells = tuple(row_cells(row) for row in results.rows)
        terminalreporter.section("rows")
        terminalreporter.write_line(Table("runtime x precision x level", ROWS, cells, words=2).plain())
        terminalreporter.write_line(recommend(configurations(results.rows)))
    findings = found.findings
    tables = roofline_tables(findings.roofline) if findings.roofline is not None else []
    tables += [curve_table(one) for one in findings.curves] + peer_tables(findings.peers)
    for table in tables:
        terminalreporter.write_line(f"\n{table.plain()}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        results.write(out / RESULTS)
        write_whole(out / "report.html", html(results))
        plotted = configurations(results.rows)
        if plotted:
            write_whole(out / "pareto.png", plot.drawn(plot.pareto(plotted), "png"))
        if tables:
            write_whole(out / "findings.json", findings.model_dump_json(indent=1) + "\n")
        if findings.curves:
            draw_curves(findings.curves, out / "curves.png")
        terminalreporter.write_line(f"written to {out}")


def _described(taken: Measurements) -> dict[str, dict[str, object]]:
    here = machine.inspect()
    return {
        "machine": {
            "cpu": here.processor,
            "cores": here.cores,
            "system": here.system,
            "architecture": here.architecture,
            "load_before": taken.load_before,
            "load_after": psutil.getloadavg(),
        },
        "versions": dict(conditions.versions()),
        "measured": {"utc": conditions.now().utc, "commit": conditions.commit()},
        # Without the model as it was asked for: it may be a path of this machine. `ran_on` has its name.
        "settings": {k: v for k, v in asdict(taken.settings).items() if k != "model"},
        "ran_on": dict(taken.ran_on),
        "timings_ms": {step: asdict(timing) for step, timing in taken.steps.items()},
    }


def _save(found: dict[str, dict[str, object]]) -> Path:
    """Writes one file a machine and thread count, whole."""
    here = found["machine"]
    name = f"{here['cpu']} {here['cores']} cores {found['settings']['threads']} threads"
    path = _HERE / "results" / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps(found, indent=1) + "\n")
    return path
