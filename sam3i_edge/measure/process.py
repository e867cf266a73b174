"""The parent's side of a row's process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.measure.plan import Planned
from sam3i_edge.measure.questions import Question
from sam3i_edge.measure.worker import Timed

_Child = TypeVar("_Child", bound="Child")

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Child:
    """A fresh process that answers commands by `worker.answer`. Use it in a `with` block, which ends it."""

    def __init__(self, command: Sequence[str], name: str, threads: int) -> None:
        """Starts it.

        Args:
            command: what Python is called with.
            name: of the process, for messages.
            threads: that libraries are told to use.
        """
        self._name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        path = os.pathsep.join(filter(None, sys.path))
        self._child = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **dict.fromkeys(_THREADS, str(threads)), "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the parent, which then ends this one
        )

    def call(self, name: str, *arguments: object) -> Any:
        """Runs a method of the process's session.

        Raises:
            RuntimeUnavailable: it refused, naming why, or the process died.
        """
        if self._child.stdin is None or self._child.stdout is None:
            raise RuntimeError("the process was started without pipes")
        try:
            pickle.dump((name, arguments), self._child.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            self._child.stdin.flush()
            value, problem = pickle.load(self._child.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            raise RuntimeUnavailable(f"the process of {self._name} {self._death()}") from None
        if problem is not None:
            raise RuntimeUnavailable(f"{self._name}: {problem}")
        return value

    def _death(self) -> str:
        code = self._child.wait()
        if code == -9:
            return "was killed, most likely for want of memory: free some, or choose a smaller model"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"ended with exit code {code}: {said[-1] if said else 'it said nothing'}"

    def close(self) -> None:
        """Ends the process; does nothing the second time."""
        if self._child.poll() is None:
            self._child.kill()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        self._child.wait()
        self._errors.close()

    def __enter__(self: _Child) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RowProcess(Child):
    """A process that holds one variant: a `worker.Session`."""

    def __init__(self, planned: Planned, threads: int) -> None:
        self._started = time.perf_counter()
        super().__init__(["-m", "sam3i_edge.measure.worker"], planned.name, threads)
        self._open = (planned.bundle.root, planned.device, planned.precision, planned.runtime, threads)

    def start(self, question: Question) -> float:
        """Opens the variant and asks it once; gives ms from the process's start to the masks."""
        self.call("open", *self._open)
        self.call("ask", question)
        return 1e3 * (time.perf_counter() - self._started)

    def timed(self, count: int) -> Timed:
        """See `worker.Session.timed`."""
        return cast("Timed", self.call("timed", count))


def cold_start(planned: Planned, threads: int, question: Question) -> tuple[float, int]:
    """Milliseconds from a fresh process to its first masks, and its peak memory after 8 queries, bytes."""
    with RowProcess(planned, threads) as process:
        spent = process.start(question)
        process.call("ask", question, 7)
        return spent, int(process.call("peak_memory"))
