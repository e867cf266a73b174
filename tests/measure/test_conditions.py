from __future__ import annotations

from pathlib import Path

import pytest

from sam3i_edge.measure import conditions
from sam3i_edge.measure.conditions import EnergyMeter


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
    meter = EnergyMeter.here(rapl)
    assert meter is not None
    assert meter.read() == (900, 100)


def test_energy_goes_on_where_a_counter_began_again(rapl: Path) -> None:
    meter = EnergyMeter.here(rapl)
    assert meter is not None
    assert meter.joules((900, 100), (950, 150)) == pytest.approx(100e-6)
    assert meter.joules((900, 100), (10, 100)) == pytest.approx(109e-6)


def test_energy_is_unknown_and_not_zero_where_nothing_can_be_read(tmp_path: Path, rapl: Path) -> None:
    assert EnergyMeter.here(tmp_path / "nowhere") is None
    counter = rapl / "sys/class/powercap/intel-rapl:1/energy_uj"
    meter = EnergyMeter.here(rapl)
    counter.unlink()
    assert meter is not None
    assert meter.read() is None
    assert EnergyMeter.here(rapl) is None  # one package of two would be half of the truth


def test_heat_and_clock_are_read_where_they_are(tmp_path: Path) -> None:
    assert conditions.now(tmp_path).celsius is None
    assert conditions.now(tmp_path).megahertz is None
    for zone, value in ((0, 41000), (1, 55500)):
        _write(tmp_path / f"sys/class/thermal/thermal_zone{zone}/temp", str(value))
    _write(tmp_path / "proc/cpuinfo", "cpu MHz\t\t: 2000.0\ncpu MHz\t\t: 3000.0")
    found = conditions.now(tmp_path)
    assert (found.celsius, found.megahertz) == (55.5, 2500)
    _write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000")
    _write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave")
    found = conditions.now(tmp_path)
    assert (found.megahertz, found.governor) == (1500, "powersave")


def test_versions_name_what_computes() -> None:
    found = conditions.versions()
    assert {"python", "sam3i-edge", "onnxruntime", "numpy"} <= found.keys()
