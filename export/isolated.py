"""A function in a process of its own, so that what it used is given back, and its peak memory is known.

A fresh interpreter and not `multiprocessing`: that would import the caller's main module again, which a
notebook has none of and a script without a guard would run twice.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, TypeVar, cast

from sam3i_edge.devices.machine import peak_memory
from sam3i_edge.errors import ExportError
from sam3i_edge.runtimes import Progress

T = TypeVar("T")


def done(what: str, peak: int, isolate: bool) -> str:
    """A sentence on a graph that is done, with the peak memory of its own process where it had one."""
    return f"{what}: peak memory {peak / 2**20:,.0f} MiB" if isolate else what


def call(
    function: Callable[..., T], *arguments: object, isolate: bool = True, progress: Progress | None = None
) -> tuple[T, int]:
    """Calls a function of a module, in a new process or here.

    Args:
        function: importable by its name; arguments and result must pickle.
        arguments: what it is called with.
        isolate: False calls it in this process.
        progress: the function is called with such a callback under this name, and what it tells comes here.

    Returns:
        What it returned, and the peak memory of the process, bytes.

    Raises:
        ExportError: the process died, for want of memory, say.
        Exception: what the function raised.
    """
    if not isolate:
        options = {} if progress is None else {"progress": progress}
        return function(*arguments, **options), peak_memory()
    message: tuple[Any, ...] = ()
    with subprocess.Popen(
        [sys.executable, "-m", "sam3i_edge.export.isolated"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which ends the other
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as child:
        to, back = cast("IO[bytes]", child.stdin), cast("IO[bytes]", child.stdout)
        try:
            try:
                pickle.dump((function, arguments, progress is not None), to)
                to.flush()  # and is left open: its end tells the other that this process has ended
            except BrokenPipeError:  # it died at once
                with contextlib.suppress(BrokenPipeError):
                    to.close()
            with contextlib.suppress(EOFError, pickle.UnpicklingError):  # of one that died later
                while len(message := pickle.load(back)) == 2:
                    if progress is not None:
                        progress(*message)
            child.wait()
        finally:
            child.kill()  # where this process was interrupted; otherwise it has ended
    if child.returncode or len(message) != 3:
        why = "was killed, most likely for want of memory" if child.returncode == -9 else "failed"
        raise ExportError(f"the process of {function.__name__} {why} (exit code {child.returncode})")
    result, error, peak = message
    if error is not None:
        raise error
    return result, peak


def _end_with_parent() -> None:
    """Ends this process when the one that asked has ended, by a signal perhaps: nobody reads the answer."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _main() -> None:
    # What the function prints must not mix with the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    function, arguments, tells = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(words: str, share: float) -> None:
        pickle.dump((words, share), answer)
        answer.flush()

    result, error = None, None
    try:
        result = function(*arguments, **({"progress": tell} if tells else {}))
    except Exception as raised:
        error = raised
    with answer:
        pickle.dump((result, error, peak_memory()), answer, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    _main()
