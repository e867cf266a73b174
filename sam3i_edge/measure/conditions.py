"""What a figure was measured on: versions, commit, load, heat and clock."""

from __future__ import annotations

import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

import sam3i_edge
from sam3i_edge.measure.schema import Conditions

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_PACKAGES = (
    "numpy", "onnxruntime", "openvino", "torch", "coremltools", "ai-edge-litert", "opencv-python", "pillow",
    "tokenizers",
)  # fmt: skip


def now() -> Conditions:
    """Reads the state of the machine."""
    sensors = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}  # Linux
    return Conditions(
        utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        load=round(psutil.getloadavg()[0], 2),
        celsius=max((one.current for some in sensors.values() for one in some), default=None),
        megahertz=_megahertz(),
        governor=_GOVERNOR.read_text(encoding="ascii").strip() if _GOVERNOR.is_file() else None,
    )


def _megahertz() -> float | None:
    try:
        clock = psutil.cpu_freq()
    except (OSError, RuntimeError):  # virtual machines and some boards hide it
        return None
    return None if clock is None else float(clock.current)


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


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
