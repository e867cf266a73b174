"""Which energy counter belongs to a device: the processor packages', or that of the one NVIDIA GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from sam3i_edge.measure.conditions import EnergyMeter

_LIBRARY = "libnvidia-ml.so.1"  # comes with the driver


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


def meter_of(device: str) -> EnergyMeter | GpuEnergyMeter | None:
    """The meter of what a device profile computes on, or None where there is none to read.

    "cuda" has the GPU's alone, without the processor that feeds it. "jetson" has none: its boards tell power,
    not energy. All others have the processor packages'.
    """
    if device == "cuda":
        return GpuEnergyMeter.here()
    return None if device == "jetson" else EnergyMeter.here()
