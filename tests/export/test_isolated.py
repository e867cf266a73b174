"""Functions of this file run elsewhere, so it imports nothing that takes long to import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sam3i_edge.devices.machine import peak_memory
from sam3i_edge.errors import ArtifactError, ExportError
from sam3i_edge.export.isolated import call


def _where(text: str) -> tuple[str, int]:
    print("said aloud")
    return text.upper(), os.getpid()


def _count(most: int, progress) -> int:
    for number in range(1, most + 1):
        print("said aloud")
        progress("counting", number / most)
    return os.getpid()


def _refuse() -> None:
    raise ArtifactError("not this one")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _sleep(progress) -> None:
    progress("asleep", 0.0)
    time.sleep(60)


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


def test_what_it_tells_comes_back_while_it_runs(capfd):
    for isolate in (True, False):
        told = []
        pid, _ = call(
            _count, 4, isolate=isolate, progress=lambda words, share, told=told: told.append((words, share))
        )
        assert (pid != os.getpid()) == isolate
        assert told == [("counting", share) for share in (0.25, 0.5, 0.75, 1.0)]

    def leave(words, share):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        call(_count, 1_000_000, progress=leave)  # and its process has ended, or this would wait for it
    assert "said aloud" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_its_process_ends_with_the_one_that_asked(number, tmp_path):
    """Here the signal goes to one process; at a terminal Ctrl-C goes to all of its session."""
    script = (
        "import pathlib, sys\n"
        f"sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
        "from sam3i_edge.export.isolated import call\n"
        "from test_isolated import _sleep\n"
        "call(_sleep, progress=lambda *_: print('told', flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # some shells have it ignored
    ) as asks:
        assert asks.stdout.readline() == b"told\n"
        (other,) = psutil.Process(asks.pid).children()
        assert os.getsid(other.pid) != os.getsid(asks.pid)
        asks.send_signal(number)
        _, alive = psutil.wait_procs([other], timeout=5)
        for process in alive:
            process.kill()
        assert not alive
        assert asks.wait(5) == -number


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
