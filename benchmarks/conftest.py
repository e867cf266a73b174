"""`pytest benchmarks/`: times the SDK on the machine at hand and prints a table. No time is asserted.

With `--save-results` the figures go to benchmarks/results/<machine>.json, with what they were measured on:
figures in the documentation come from such a file.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import sam3i_edge
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.data.annotations import IMAGES
from sam3i_edge.errors import Sam3iError
from sam3i_edge.evaluate.report import Timing
from sam3i_edge.evaluate.tables import Table, timings
from sam3i_edge.files import write_whole
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.measure import conditions, plot, runner
from sam3i_edge.measure.cells import ROWS, peer_tables, row_cells
from sam3i_edge.measure.page import html
from sam3i_edge.measure.pareto import configurations, recommend
from sam3i_edge.measure.plan import Plan, Planned, plan
from sam3i_edge.measure.questions import read_data
from sam3i_edge.measure.runner import BUDGETS, Bench, all_ok
from sam3i_edge.measure.schema import RESULTS, Results, Row

# Fewer say little about the slowest tenth.
LEAST_QUERIES_SAVED = 64
_PACKAGES = ("onnxruntime", "numpy", "opencv-python", "tokenizers", "pillow", "pydantic", "typer")
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """What to measure with; recorded beside the figures."""

    model: str
    device: str
    threads: int
    queries: int
    processes: int


@dataclass
class Measurements:
    """Times of the steps measured so far, and what they ran on."""

    settings: Settings
    steps: dict[str, Timing] = field(default_factory=dict)
    ran_on: dict[str, str | int | float] = field(default_factory=dict)
    load_before: tuple[float, ...] = ()

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
    settings = Settings(
        option("--model"), option("--device"), option("--threads"), option("--queries"), option("--processes")
    )
    if min(settings.threads, settings.queries, settings.processes) < 1:
        raise pytest.UsageError("--threads, --queries and --processes must each be at least 1")
    if option("--save-results") and settings.queries < LEAST_QUERIES_SAVED:
        raise pytest.UsageError(
            f"--save-results wants at least {LEAST_QUERIES_SAVED} queries, got --queries {settings.queries}"
        )
    config.stash[_MEASUREMENTS] = Measurements(settings, load_before=_load())


@dataclass
class Rows:
    """The rows measured so far; `plan` is what runs here."""

    plan: Plan
    results: Results
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
        return [planned for planned in self.plan.rows if all_ok(planned, self.results.rows)]

    def add(self, **found: object) -> None:
        """Keeps further parts of the results."""
        self.results = self.results.model_copy(update=found)


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
    budget, folder = BUDGETS[option("--budget")], option("--data")

    def make() -> Bench:
        if folder is not None:
            data = runner.Data(read_data(folder), folder / IMAGES)
        else:
            data = runner.drawn(budget, tmp_path_factory.mktemp("scenes") / "drawn")
        return Bench(here, chosen, budget, data, lambda _: None)

    found = Rows(here, runner.blank(here, chosen), make, threads)
    pytestconfig.stash[_ROWS] = found
    yield found
    if "bench" in vars(found):
        found.bench.close()


@pytest.fixture(scope="session")
def measurements(pytestconfig: pytest.Config) -> Measurements:
    return pytestconfig.stash[_MEASUREMENTS]


@pytest.fixture(scope="session")
def settings(measurements: Measurements) -> Settings:
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
    commit = found["commit"]
    terminalreporter.write_line(f"commit: {commit['id']}{' with changes' if commit['changed'] else ''}\n")
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
    for task, header, cells in peer_tables(results.peers):
        terminalreporter.write_line(Table(task, header, tuple(cells), words=1).plain())
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        results.write(out / RESULTS)
        write_whole(out / "report.html", html(results))
        plotted = configurations(results.rows)
        if plotted:
            plot.pareto(plotted, out, results.machine.processor or results.machine.architecture)
        terminalreporter.write_line(f"written to {out}")


def _described(taken: Measurements) -> dict[str, dict[str, object]]:
    return {
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count() or 0,
            "system": platform.system(),
            "architecture": platform.machine(),
            "load_before": taken.load_before,
            "load_after": _load(),
        },
        "versions": {
            "sam3i-edge": sam3i_edge.__version__,
            "python": platform.python_version(),
            **_versions(),
        },
        "commit": _commit(),
        "measured": {"utc": datetime.now(timezone.utc).isoformat(timespec="seconds")},
        # Without the model as it was asked for: it may be a path of this machine. `ran_on` has its name.
        "settings": {k: v for k, v in asdict(taken.settings).items() if k != "model"},
        "ran_on": dict(taken.ran_on),
        "timings_ms": {step: asdict(timing) for step, timing in taken.steps.items()},
    }


def _save(found: dict[str, dict[str, object]]) -> Path:
    """Writes one file a machine and thread count, whole."""
    name = f"{_cpu()} {os.cpu_count()} cores {found['settings']['threads']} threads"
    path = _HERE / "results" / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.replace(path)
    return path


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _commit() -> dict[str, object]:
    """Which source was measured; "unknown" outside a repository."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=_HERE, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain")
    return {"id": git("rev-parse", "HEAD") or "unknown", "changed": changed is None or bool(changed)}


def _cpu() -> str:
    """The processor's name, as the system tells it."""
    known = Path("/proc/cpuinfo")
    if known.is_file():
        names = re.findall(r"^(?:model name|Model)\s*:\s*(.+)$", known.read_text(), re.MULTILINE)
        if names:
            return str(names[0]).strip()
    return platform.processor() or platform.machine()


def _load() -> tuple[float, ...]:
    """Load averages of the last 1, 5 and 15 minutes: other work on the machine falsifies the figures."""
    return tuple(round(value, 2) for value in os.getloadavg()) if hasattr(os, "getloadavg") else ()
