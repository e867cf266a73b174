"""Which energy counter belongs to a device: the processor packages', or that of the one NVIDIA GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

_LIBRARY = "libnvidia-ml.so.1"  # comes with the driver


@dataclass(frozen=True, slots=True)
class PackageEnergyMeter:
    """Counts the joules of the processor packages (RAPL), where they can be read.

    Attributes:
        counters: folders of the packages, each with `energy_uj` and `max_energy_range_uj`.
    """

    counters: tuple[Path, ...]

    @classmethod
    def here(cls, root: Path = Path("/")) -> PackageEnergyMeter | None:
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


@dataclass(frozen=True, slots=True)
class GpuEnergyMeter:
    """Counts the joules of a GPU by the driver's own counter (NVML), which Volta and newer have.

    Attributes:
        library: NVML, initialised.
        device: its handle of the GPU.
    """

    library: ctypes.CDLL
    device: ctypes.c_void_p

    @classmethod
    def here(cls, library: str = _LIBRARY) -> GpuEnergyMeter | None:
        """The meter, or None without NVML, with other than one GPU, and where it has no counter."""
        try:
            nvml = ctypes.CDLL(library)
        except OSError:
            return None
        count, device = ctypes.c_uint(), ctypes.c_void_p()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) or count.value != 1:
            return None
        if nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)):
            return None
        meter = cls(nvml, device)
        return None if meter.read() is None else meter

    def read(self) -> tuple[int, ...] | None:
        """Millijoules since the driver was loaded, or None where they could not be read this time."""
        value = ctypes.c_ulonglong()
        status = self.library.nvmlDeviceGetTotalEnergyConsumption(self.device, ctypes.byref(value))
        return None if status else (value.value,)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float | None:
        """Energy between two readings."""
        return (after[0] - before[0]) / 1e3


def meter_of(device: str) -> PackageEnergyMeter | GpuEnergyMeter | None:
    """The meter of what a device profile computes on, or None where there is none to read.

    "cuda" has the GPU's alone, without the processor that feeds it. "jetson" has none: its boards tell power,
    not energy. All others have the processor packages'.
    """
    if device == "cuda":
        return GpuEnergyMeter.here()
    return None if device == "jetson" else PackageEnergyMeter.here()


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
