"""Limits of a Linux control group: what a container may use of the machine. Versions 1 and 2.

`docker --cpus`, `--memory` and the limits of Kubernetes are such limits; nothing else that a process can ask
for shows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def cpu_limit(root: Path = Path("/")) -> float | None:
    """Gives the processor time that this process may use, in cores, or None where there is no limit.

    Args:
        root: folder that stands for "/".
    """
    limits = []
    for folder in _folders(root, "cpu"):
        version1 = f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
        for words in (_text(folder / "cpu.max").split(), version1.split()):
            # Without a limit the first is "max", or -1.
            if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
                limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def memory_limit(root: Path = Path("/")) -> tuple[int, int] | None:
    """Gives (limit, used) of the tightest group around this process, bytes, or None where there is no limit.

    Args:
        root: folder that stands for "/".
    """
    limits = []
    for folder in _folders(root, "memory"):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            most, spent = _text(folder / limit).strip(), _text(folder / used).strip()
            # Without a limit it is "max", or nearly 2^63.
            if most.isdigit() and int(most) < 2**60:
                limits.append((int(most), int(spent) if spent.isdigit() else 0))
    return min(limits, key=lambda pair: pair[0] - pair[1], default=None)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group and of those around it, in both versions."""
    for line in _text(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        # A container often sees its own group as the root, whatever the path says.
        group = mount / path.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
