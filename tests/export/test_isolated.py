from __future__ import annotations

import os
import signal

import pytest

from sam3i_edge.devices.machine import peak_memory
from sam3i_edge.errors import ArtifactError, ExportError
from sam3i_edge.export import gate
from sam3i_edge.export.float_bundle import export_bundle
from sam3i_edge.export.isolated import call


def _where(text: str) -> tuple[str, int]:
    print("said aloud")
    return text.upper(), os.getpid()


def _refuse() -> None:
    raise ArtifactError("not this one")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _grow() -> int:
    block = bytearray(200 << 20)
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
    return len(block)


def test_a_function_runs_elsewhere_and_its_answer_comes_back(capfd):
    (text, pid), peak = call(_where, "here")
    assert text == "HERE"
    assert pid != os.getpid()
    assert peak > 0
    out, err = capfd.readouterr()
    assert (out, err) == ("", "said aloud\n")
    (_, pid), _ = call(_where, "here", isolate=False)
    assert pid == os.getpid()


def test_the_peak_is_the_childs_own():
    held = bytearray(400 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    small, large = call(os.getpid)[1], call(_grow)[1]
    assert peak_memory() > 400 << 20
    assert small < 400 << 20
    assert large - small > 150 << 20


def test_errors_and_deaths():
    with pytest.raises(ArtifactError, match="not this one"):
        call(_refuse)
    with pytest.raises(ExportError, match="_die was killed, most likely for want of memory"):
        call(_die)


@pytest.mark.slow
def test_a_large_model_is_exported_graph_by_graph_to_the_same_files(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "LARGE", 0)
    told: list[str] = []
    manifest, agreement = export_bundle(
        exported.run,
        tmp_path / "out",
        name="tiny",
        license_file=exported.run / "LICENSE",
        pairs=3,
        progress=lambda sentence, _: told.append(sentence),
    )
    assert sum("peak memory" in line for line in told) >= 3 * 4
    assert agreement.pairs == 3
    data = "onnx-fp32/weights.data"
    assert manifest.files[data] == exported.manifest.files[data]
