"""A function in a process of its own, so that what it used is given back, and its peak memory is known.

A fresh interpreter and not `multiprocessing`: that would import the caller's main module again, which a
notebook has none of and a script without a guard would run twice.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar

from sam3i_edge.devices.machine import peak_memory
from sam3i_edge.errors import ExportError

T = TypeVar("T")


def done(what: str, peak: int, isolate: bool) -> str:
    """A sentence on a graph that is done, with the peak memory of its own process where it had one."""
    return f"{what}: peak memory {peak / 2**20:,.0f} MiB" if isolate else what


def call(function: Callable[..., T], *arguments: object, isolate: bool = True) -> tuple[T, int]:
    """Calls a function of a module, in a new process or here.

    Args:
        function: importable by its name; arguments and result must pickle.
        arguments: what it is called with.
        isolate: False calls it in this process.

    Returns:
        What it returned, and the peak memory of the process, bytes.

    Raises:
        ExportError: the process died, for want of memory, say.
        Exception: what the function raised.
    """
    if not isolate:
        return function(*arguments), peak_memory()
    done = subprocess.run(
        [sys.executable, "-m", "sam3i_edge.export.isolated"],
        input=pickle.dumps((function, arguments)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    if done.returncode:
        why = "was killed, most likely for want of memory" if done.returncode == -9 else "failed"
        raise ExportError(f"the process of {function.__name__} {why} (exit code {done.returncode})")
    result, error, peak = pickle.loads(done.stdout)
    if error is not None:
        raise error
    return result, peak


def _main() -> None:
    # What the function prints must not mix with the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    function, arguments = pickle.load(sys.stdin.buffer)
    result, error = None, None
    try:
        result = function(*arguments)
    except Exception as raised:
        error = raised
    with answer:
        pickle.dump((result, error, peak_memory()), answer, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    _main()
