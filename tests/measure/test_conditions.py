from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sam3i_edge.measure import conditions


def test_heat_is_the_warmest_sensor_and_the_clock_the_mean(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    warm = {"cpu": [SimpleNamespace(current=41.0), SimpleNamespace(current=55.5)], "disk": []}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: warm, raising=False)
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=2500.0))
    monkeypatch.setattr(psutil, "getloadavg", lambda: (1.234, 0.0, 0.0))
    governor = tmp_path / "scaling_governor"
    governor.write_text("powersave\n")
    monkeypatch.setattr(conditions, "_GOVERNOR", governor)
    found = conditions.now()
    assert (found.celsius, found.megahertz, found.load, found.governor) == (55.5, 2500, 1.23, "powersave")


def test_what_a_machine_hides_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hidden() -> Any:
        raise NotImplementedError("can't find current frequency file")

    monkeypatch.delattr(psutil, "sensors_temperatures", raising=False)
    monkeypatch.setattr(psutil, "cpu_freq", hidden)
    monkeypatch.setattr(conditions, "_GOVERNOR", tmp_path / "none")
    found = conditions.now()
    assert (found.celsius, found.megahertz, found.governor) == (None, None, None)
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    assert conditions.now().megahertz is None


def test_versions_name_what_computes() -> None:
    found = conditions.versions()
    assert {"python", "sam3i-edge", "onnxruntime", "numpy"} <= found.keys()
