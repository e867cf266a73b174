"""Functions of this file run elsewhere, so it imports nothing that takes long to import."""

from __future__ import annotations

import os
import signal

import pytest

from sam3i_edge.devices.machine import peak_memory
from sam3i_edge.errors import ArtifactError, ExportError
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
