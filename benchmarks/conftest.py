"""`pytest benchmarks/`: times the SDK on the machine at hand and prints a table. No time is asserted.

With `--save-results` the figures go to benchmarks/results/<machine>.json, with what they were measured on:
figures in the documentation come from such a file.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import sam3i_edge
from sam3i_edge.evaluate.report import Timing
from sam3i_edge.evaluate.tables import timings

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
