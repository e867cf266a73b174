"""Runtimes that execute an exported graph, behind one small interface."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.install_hint import install_hint

Array = NDArray[np.generic]

# More is a slip, and takes minutes to start or does not start at all.
MOST_THREADS = 1024

# Called with a sentence for people and the share that is done, 0 to 1.
Progress = Callable[[str, float], None]


def part(progress: Progress, number: int, count: int, words: str = "") -> Progress:
    """For part `number` of `count` equal ones: its share becomes one of the whole, its words may be set."""
    return lambda own, share: progress(words or own, (number + share) / count)


def untold(words: str, share: float) -> None:
    """Progress that nobody asked for."""


class Runtime(Protocol):
    """Runs one graph on one device. Not thread-safe: `Segmenter` holds one lock a runtime."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Maps input names to output names, as the graph has them.

        Raises:
            ValueError: an input is missing, unknown, or of another dtype or shape than the graph wants.
            RuntimeUnavailable: the runtime was closed, or failed while running.
        """

    def close(self) -> None:
        """Frees the graph's memory. Calling `run` afterwards raises; closing twice does nothing."""


# name -> (module with `open(artifact, device, threads, low_memory=...) -> Runtime` and `probe(device)`, the
# extra that brings its package, "" for the base install). A module that builds engines also has
# `prepare(artifact, device, precision, progress)`, and its `open` takes `precision`.
_RUNTIMES: dict[str, tuple[str, str]] = {
    "onnxruntime": ("sam3i_edge.runtimes.ort", ""),
    "openvino": ("sam3i_edge.runtimes.ov", "openvino"),
    "eager": ("sam3i_edge.runtimes.eager", "train"),
    "coreml": ("sam3i_edge.runtimes.coreml", "coreml"),
    "litert": ("sam3i_edge.runtimes.litert", "litert"),
}

RUNTIMES = tuple(_RUNTIMES)

# Ends the name of a precision whose floating point a CPU computes in bfloat16. OpenVINO alone has these.
BF16 = "-bf16"


def check_threads(threads: int | None) -> None:
    """Raises ValueError unless `threads` is None or 1 to `MOST_THREADS`."""
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads must be 1 to {MOST_THREADS:,}, got {threads:,}")


def open_runtime(
    runtime: str,
    artifact: Path,
    device: str,
    *,
    threads: int | None = None,
    low_memory: bool = False,
    precision: str | None = None,
    compile: bool = False,
) -> Runtime:
    """Opens one graph, importing only the framework it needs.

    Args:
        runtime: one of `RUNTIMES`.
        artifact: the graph's file.
        device: the device to run on, by the name that the runtime's module knows: "cpu".
        threads: threads for one operator, or None for one for each core this process may use.
        low_memory: keep weights in the file where that is slower but smaller.
        precision: "fp32" or "fp16", for a device whose engines are built from the graph; None everywhere
            else, where the graph itself fixes it.
        compile: torch compiles the graph once, before its first question; of the eager runtime alone.

    Raises:
        RuntimeUnavailable: `runtime` is unknown, its package is not installed, or it refuses `device`.
        ArtifactError: the file is missing or is no graph that the runtime reads.
        ValueError: `threads` is below 1 or above `MOST_THREADS`, or `compile` was asked of another runtime.
    """
    if compile and runtime != "eager":
        raise ValueError(f"compile is for runtime 'eager', and this is {runtime!r}: leave it out")
    check_threads(threads)
    options: dict[str, Any] = {} if precision is None else {"precision": precision}
    options |= {"compile": True} if compile else {}
    opened: Runtime = _module(runtime).open(artifact, device, threads, low_memory=low_memory, **options)
    return opened


def prepare(
    runtime: str, artifact: Path, device: str, *, precision: str | None, progress: Progress | None = None
) -> None:
    """Does what a graph needs once before it can be opened: builds and keeps its engine.

    A runtime that opens graphs as they are does nothing. An engine that was built before is kept.

    Args:
        runtime: one of `RUNTIMES`.
        artifact: the graph's file.
        device: as in `open_runtime`.
        precision: as in `open_runtime`.
        progress: called while it builds.

    Raises:
        RuntimeUnavailable: as `open_runtime`, or the build failed.
        ArtifactError: the file is missing or is no graph that the runtime reads.
    """
    build = getattr(_module(runtime), "prepare", None)
    if build is not None and precision is not None:
        build(artifact, device, precision, progress)


def probe(runtime: str, device: str) -> None:
    """Proves that `runtime` works on `device`, by running a tiny graph there.

    Raises:
        RuntimeUnavailable: it is unknown, not installed, or did not run; the message says why.
    """
    _module(runtime).probe(device)


def install_line(runtime: str) -> str:
    """The command that adds the packages of one of `RUNTIMES`."""
    return install_hint(_RUNTIMES[runtime][1])


def _module(runtime: str) -> ModuleType:
    if runtime not in _RUNTIMES:
        raise RuntimeUnavailable(f"unknown runtime {runtime!r}; choose from {', '.join(_RUNTIMES)}")
    try:
        return importlib.import_module(_RUNTIMES[runtime][0])
    except ImportError as missing:
        raise RuntimeUnavailable(
            f"runtime {runtime!r} cannot be imported ({missing}): {install_line(runtime)}"
        ) from missing
