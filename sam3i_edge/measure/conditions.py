"""What a figure was measured on: machine, versions, commit, load, heat, clock and energy counters."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import sam3i_edge
from sam3i_edge.devices import machine
from sam3i_edge.devices.machine import usable_cores
from sam3i_edge.measure.schema import Conditions, MachineFacts

_ROOT = Path("/")
_PACKAGES = (
    "numpy", "onnxruntime", "openvino", "torch", "coremltools", "opencv-python", "pillow", "tokenizers",
)  # fmt: skip


def now(root: Path = _ROOT) -> Conditions:
    """Reads the state of the machine below `root`, which stands for "/"."""
    zones = [_number(path) for path in root.glob("sys/class/thermal/thermal_zone*/temp")]
    warm = [value / 1000 for value in zones if value is not None]
    clocks = [_number(path) for path in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")]
    known = [value / 1000 for value in clocks if value is not None]
    if not known:
        listed = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _text(root / "proc/cpuinfo") or "", re.MULTILINE)
        known = [float(value) for value in listed]
    return Conditions(
        utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        celsius=max(warm, default=None),
        megahertz=sum(known) / len(known) if known else None,
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    )


def facts() -> MachineFacts:
    """The machine that runs this process."""
    here = machine.inspect()
    return MachineFacts(
        processor=here.processor,
        architecture=here.architecture,
        system=here.system,
        cores=usable_cores(),
        memory_bytes=here.memory_bytes,
        features=tuple(name for name, there in here.features.items() if there),
    )


def versions() -> dict[str, str]:
    """Python, this package and what computes for it, as far as it is installed."""
    found = {"sam3i-edge": sam3i_edge.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the source, with "+" where files were changed; None outside its repository."""
    folder = Path(sam3i_edge.__file__).parent
    head, changed = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "-uno", ".")
    # An installed package may lie inside somebody else's repository.
    if head is None or _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return head + ("+" if changed else "")


@dataclass(frozen=True, slots=True)
class EnergyMeter:
    """Counts the joules of the processor packages (RAPL), where they can be read.

    Attributes:
        counters: folders of the packages, each with `energy_uj` and `max_energy_range_uj`.
    """

    counters: tuple[Path, ...]

    @classmethod
    def here(cls, root: Path = _ROOT) -> EnergyMeter | None:
        """The meter, or None where no package has a counter that this user may read."""
        # intel-rapl:0 is a package, intel-rapl:0:0 a part of it. AMD's lie under the same name.
        found = [p for p in sorted(root.glob("sys/class/powercap/intel-rapl:*")) if p.name.count(":") == 1]
        kept = tuple(p for p in found if _number(p / "energy_uj") is not None)
        return cls(kept) if kept and len(kept) == len(found) else None

    def read(self) -> tuple[int, ...] | None:
        """Microjoules by package, or None where one could not be read this time."""
        values = [_number(path / "energy_uj") for path in self.counters]
        return None if None in values else tuple(value for value in values if value is not None)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float | None:
        """Energy between two readings at most one turn of a counter apart."""
        total = 0
        for path, first, last in zip(self.counters, before, after, strict=True):
            turn = _number(path / "max_energy_range_uj")
            if last < first and turn is None:
                return None
            total += last - first + (turn if last < first and turn is not None else 0)
        return total / 1e6


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.lstrip("-").isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
