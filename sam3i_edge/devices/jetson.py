"""NVIDIA Jetson boards: whether this is one, which, and how it is set.

Read from the Tegra release file, the device tree, /proc/meminfo and nvpmodel; nothing is ever changed.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Source: NVIDIA's JetPack archive, developer.nvidia.com/embedded/jetpack-archive. A revision that is not here
# has no JetPack version rather than a guessed one.
_JETPACK = {
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
}

_RELEASE = re.compile(r"R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Jetson:
    """One board. What could not be read is None.

    Attributes:
        model: what the board calls itself, such as "NVIDIA Jetson AGX Orin Developer Kit".
        l4t: release of Jetson Linux, such as "36.4.3".
        jetpack: the JetPack version that brings this release.
        memory_bytes: memory that processor and GPU share.
        power_mode: what nvpmodel calls its mode, such as "MAXN" or "15W".
    """

    model: str | None
    l4t: str | None
    jetpack: str | None
    memory_bytes: int | None
    power_mode: str | None


def detect(root: Path = Path("/")) -> Jetson | None:
    """Reads the board below `root`, or gives None where there is none.

    A board has a Tegra release file, or a device tree of a Tegra: containers often hide the file.

    Args:
        root: folder that stands for "/".
    """
    release = _text(root / "etc/nv_tegra_release")
    compatible = _text(root / "proc/device-tree/compatible") or ""
    if release is None and "nvidia,tegra" not in compatible:
        return None
    l4t = _l4t(release or "")
    return Jetson(
        model=_text(root / "proc/device-tree/model"),
        l4t=l4t,
        jetpack=None if l4t is None else _JETPACK.get(l4t),
        memory_bytes=_memory(root),
        power_mode=_power_mode(root),
    )


def _text(path: Path) -> str | None:
    """A small file, without the zero byte that ends strings of the device tree."""
    try:
        return path.read_bytes().decode(errors="replace").replace("\0", " ").strip()
    except OSError:
        return None


def _l4t(release: str) -> str | None:
    """The release in three parts: "# R36 (release), REVISION: 4.3" is 36.4.3, and 2 is 39.2.0."""
    found = _RELEASE.search(release)
    if found is None:
        return None
    parts = [found[1], *found[2].split(".")]
    return ".".join([*parts, "0", "0"][: max(3, len(parts))])


def _memory(root: Path) -> int | None:
    found = re.search(r"MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo") or "")
    return None if found is None else 1024 * int(found[1])


def _power_mode(root: Path) -> str | None:
    try:
        asked = subprocess.run(
            [root / "usr/sbin/nvpmodel", "-q"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"NV Power Mode:\s*(\S+)", asked.stdout)
    return None if found is None else found[1]
