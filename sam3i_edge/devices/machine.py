"""Facts about the processor and memory, read and never guessed."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sam3i_edge.devices import cgroup

# What makes integers and half precision fast: the name that users know -> the kernel's, by architecture.
_X86 = {
    "AVX2": "avx2",
    "F16C": "f16c",
    "AVX-512": "avx512f",
    "AVX-512 VNNI": "avx512_vnni",
    "AVX VNNI": "avx_vnni",
    "AVX-512 BF16": "avx512_bf16",
    "AMX INT8": "amx_int8",
    "AMX BF16": "amx_bf16",
}
_ARM = {
    "NEON": "asimd",
    "NEON dotprod": "asimddp",
    "NEON FP16": "asimdhp",
    "I8MM": "i8mm",
    "BF16": "bf16",
    "SVE": "sve",
}
# The names of macOS, where they differ in kind: sysctl's keys.
_APPLE = {
    "NEON": "hw.optional.AdvSIMD",
    "NEON dotprod": "hw.optional.arm.FEAT_DotProd",
    "NEON FP16": "hw.optional.arm.FEAT_FP16",
    "I8MM": "hw.optional.arm.FEAT_I8MM",
    "BF16": "hw.optional.arm.FEAT_BF16",
    "AVX2": "hw.optional.avx2_0",
    "AVX-512": "hw.optional.avx512f",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine that runs this process. What could not be read is None.

    Attributes:
        system: operating system and its release.
        architecture: "x86_64", "aarch64", ...
        processor: what the processor calls itself.
        cores: those that this process may run on.
        features: instructions that matter for speed -> whether they are there. Empty where nothing tells.
        memory_bytes: memory of the machine, or what the container may take of it where that is less.
        available_bytes: what of it could be taken now.
    """

    system: str
    architecture: str
    processor: str | None
    cores: int
    features: dict[str, bool]
    memory_bytes: int
    available_bytes: int


def inspect(root: Path = Path("/")) -> Machine:
    """Reads the machine.

    Args:
        root: folder that stands for "/", where processor and container are described.
    """
    import psutil  # not needed to segment

    darwin = sys.platform == "darwin"
    processor, features = _apple_processor() if darwin else _linux_processor(_text(root / "proc/cpuinfo"))
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    limit = cgroup.memory_limit(root)
    if limit is not None:
        total = min(total, limit[0])
        available = min(available, max(0, limit[0] - limit[1]))
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        processor=processor or platform.processor() or None,
        cores=usable_cores(),
        features=features,
        memory_bytes=total,
        available_bytes=available,
    )


def usable_cores() -> int:
    """Cores that this process may keep busy: those it may run on, within its container's share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cgroup.cpu_limit()
    return cores if share is None else max(1, min(cores, int(share)))


def peak_memory() -> int:
    """Most memory that this process has held at once, bytes: pages of mapped files that it touched count."""
    # psutil has no peak on Linux.
    try:
        # Not ru_maxrss, which a child inherits from its parent.
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status)[0])


def _linux_processor(cpuinfo: str) -> tuple[str | None, dict[str, bool]]:
    """Name and features from /proc/cpuinfo: "flags" on x86, "Features" on Arm."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    for key, names in (("flags", _X86), ("Features", _ARM)):
        if key in fields:
            words = set(fields[key].split())
            return fields.get("model name"), {name: word in words for name, word in names.items()}
    return fields.get("model name"), {}


def _apple_processor() -> tuple[str | None, dict[str, bool]]:
    values = {name: _sysctl(key) for name, key in _APPLE.items()}
    features = {name: value == "1" for name, value in values.items() if value is not None}
    return _sysctl("machdep.cpu.brand_string"), features


def _sysctl(key: str) -> str | None:
    try:
        asked = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
