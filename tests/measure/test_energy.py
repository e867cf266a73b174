"""The packages' energy counters, and the GPU's, by stand-ins.

That for NVML is a library built here, whose counter grows by call.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sam3i_edge.measure import energy
from sam3i_edge.measure.energy import GpuEnergyMeter, PackageEnergyMeter

_SOURCE = """
static unsigned long long spent = 1000;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned* count) { *count = COUNT; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) { *device = (void*)7; return index != 0; }
int nvmlDeviceGetTotalEnergyConsumption(void* device, unsigned long long* energy) {
    if (device != (void*)7) return 2;
    spent += 2500;
    *energy = spent;
    return STATUS;
}
"""


def _library(folder: Path, count: int = 1, status: int = 0) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    (folder / "nvml.c").write_text(_SOURCE.replace("COUNT", str(count)).replace("STATUS", str(status)))
    path = folder / f"nvml-{count}-{status}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, folder / "nvml.c"], check=True)
    return str(path)


def test_the_counter_is_read_in_millijoules(tmp_path: Path) -> None:
    meter = GpuEnergyMeter.here(_library(tmp_path))
    assert meter is not None
    before, after = meter.read(), meter.read()
    assert before is not None
    assert after is not None
    assert meter.joules(before, after) == 2.5


@pytest.mark.parametrize(("count", "status"), [(0, 0), (2, 0), (1, 3)])
def test_no_meter_where_it_would_not_be_the_truth(tmp_path: Path, count: int, status: int) -> None:
    assert GpuEnergyMeter.here(_library(tmp_path, count, status)) is None


def test_no_meter_without_the_driver(tmp_path: Path) -> None:
    assert GpuEnergyMeter.here(str(tmp_path / "none.so")) is None


def test_each_device_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy.GpuEnergyMeter, "here", lambda: "gpu")
    monkeypatch.setattr(energy.PackageEnergyMeter, "here", lambda: "packages")
    assert energy.meter_of("cuda") == "gpu"
    assert energy.meter_of("cpu") == energy.meter_of("intel-gpu") == "packages"
    assert energy.meter_of("jetson") is None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.fixture
def rapl(tmp_path: Path) -> Path:
    for name, value in (("intel-rapl:0", 900), ("intel-rapl:0:0", 5), ("intel-rapl:1", 100)):
        _write(tmp_path / f"sys/class/powercap/{name}/energy_uj", str(value))
        _write(tmp_path / f"sys/class/powercap/{name}/max_energy_range_uj", "999")
    return tmp_path


def test_energy_counts_packages_and_not_their_parts(rapl: Path) -> None:
    meter = PackageEnergyMeter.here(rapl)
    assert meter is not None
    assert meter.read() == (900, 100)


def test_energy_goes_on_where_a_counter_began_again(rapl: Path) -> None:
    meter = PackageEnergyMeter.here(rapl)
    assert meter is not None
    assert meter.joules((900, 100), (950, 150)) == pytest.approx(100e-6)
    assert meter.joules((900, 100), (10, 100)) == pytest.approx(109e-6)


def test_energy_is_unknown_and_not_zero_where_nothing_can_be_read(tmp_path: Path, rapl: Path) -> None:
    assert PackageEnergyMeter.here(tmp_path / "nowhere") is None
    counter = rapl / "sys/class/powercap/intel-rapl:1/energy_uj"
    meter = PackageEnergyMeter.here(rapl)
    counter.unlink()
    assert meter is not None
    assert meter.read() is None
    assert PackageEnergyMeter.here(rapl) is None  # one package of two would be half of the truth
