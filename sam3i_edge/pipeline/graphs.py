"""The graphs of one variant, opened when first needed, with one lock each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.devices.profiles import Choice
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.pipeline.ask import Arrays, Run
from sam3i_edge.pipeline.timing import Clock, step_of
from sam3i_edge.runtimes import Progress, Runtime, open_runtime, part, prepare

_log = logging.getLogger(__name__)


class Graphs:
    """Opens, runs and closes graphs by name. `open` and `run` want the graph's lock to be held."""

    def __init__(
        self,
        bundle: Bundle,
        choice: Choice,
        threads: int | None,
        *,
        compile: bool = False,
        keep_text_encoders: bool = True,
    ) -> None:
        self._paths = bundle.graphs(choice.variant)
        self._choice = choice
        self._threads, self._compile = threads, compile
        self._keep_text_encoders = keep_text_encoders
        self._opened: dict[str, Runtime] = {}
        self._locks = {name: threading.Lock() for name in self._paths}
        self._closed = False

    @property
    def _engine_precision(self) -> str | None:
        return self._choice.precision if self._choice.builds else None

    def lock(self, name: str) -> threading.Lock:
        """Gives the lock of one graph."""
        return self._locks[name]

    def open(self, name: str) -> Runtime:
        """Opens a graph, once.

        Raises:
            ArtifactError: the runtime cannot read it.
            RuntimeUnavailable: the graphs were closed.
        """
        self.check_open()
        if name not in self._opened:
            start = time.perf_counter()
            self._opened[name] = open_runtime(
                self._choice.runtime,
                self._paths[name],
                self._choice.device,
                threads=self._threads,
                precision=self._engine_precision,
                compile=self._compile,
            )
            _log.debug("opened %s in %.0f ms", name, 1e3 * (time.perf_counter() - start))
        return self._opened[name]

    def prepare(self, progress: Progress | None = None) -> None:
        """Opens every graph, and builds its engine first where the device runs engines.

        Raises:
            ArtifactError: the runtime cannot read one.
            RuntimeUnavailable: a build failed, or the graphs were closed.
        """
        for number, (name, path) in enumerate(self._paths.items()):
            # Without anybody to tell, the build itself warns in the log.
            report = None if progress is None else part(progress, number, len(self._paths))
            if report is not None:
                report(f"opening {name}", 0.0)
            with self.lock(name):
                self.check_open()
                if name not in self._opened:
                    prepare(
                        self._choice.runtime,
                        path,
                        self._choice.device,
                        precision=self._engine_precision,
                        progress=report,
                    )
                self.open(name)
                self._close_unkept(name)
        if progress is not None:
            progress("ready", 1.0)

    def run(self, name: str, inputs: Arrays, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Runs a graph and gives the wanted outputs.

        Raises:
            ArtifactError: the graph does not fit the others: it lacks an output or takes other inputs.
            RuntimeUnavailable: the graphs were closed, or the runtime failed.
        """
        runtime = self.open(name)
        try:
            outputs = runtime.run(inputs)
        except ValueError as error:
            raise ArtifactError(f"the bundle's graphs do not fit together: {error}") from error
        finally:
            self._close_unkept(name)
        missing = [output for output in wanted if output not in outputs]
        if missing:
            raise ArtifactError(
                f"graph {self._paths[name]} has no output {missing[0]!r}, it has {', '.join(outputs)}: "
                "export the bundle again"
            )
        return {output: outputs[output] for output in wanted}

    def runner(self, clock: Clock) -> Run:
        """What asks by `sam3i_edge.pipeline.ask`; it adds the time of each graph to its step.

        A graph may open at its first use, which is not part of what running it takes.
        """

        def run(graph: str, inputs: Arrays, wanted: Sequence[str]) -> Arrays:
            self.open(graph)
            with clock.step(step_of(graph)):
                return self.run(graph, inputs, wanted)

        return run

    def _close_unkept(self, name: str) -> None:
        if name.startswith("text_encoder.") and not self._keep_text_encoders:
            self._opened.pop(name).close()

    def check_open(self) -> None:
        """Raises RuntimeUnavailable after `close`."""
        if self._closed:
            raise RuntimeUnavailable("this Segmenter was closed: make a new one")

    def close(self) -> None:
        """Closes every graph, each when its last run has ended."""
        self._closed = True
        for name, lock in self._locks.items():
            with lock:
                runtime = self._opened.pop(name, None)
                if runtime is not None:
                    runtime.close()
