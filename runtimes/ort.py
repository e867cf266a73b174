"""ONNX Runtime on the CPU.

Graphs with a data file beside them (`weights.data`) load it from the graph's own folder.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from sam3i_edge.errors import ArtifactError, RuntimeUnavailable

# device -> execution providers. Never more than what was asked for: ONNX Runtime would fall back silently.
_PROVIDERS: dict[str, list[str]] = {"cpu": ["CPUExecutionProvider"]}

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}

# ONNX Runtime's exceptions share no base but Exception.
_FAILURES: tuple[type[Exception], ...] = tuple(
    value for value in vars(_state).values() if isinstance(value, type) and issubclass(value, Exception)
)


class OrtRuntime:
    """One graph in one ONNX Runtime session. Not thread-safe by contract, see `Runtime`."""

    def __init__(self, session: onnxruntime.InferenceSession, name: str) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._name = name
        self._inputs = {
            i.name: (np.dtype(_DTYPES[i.type]) if i.type in _DTYPES else None, tuple(i.shape))
            for i in session.get_inputs()
        }
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph once; see `Runtime.run`."""
        if self._session is None:
            raise RuntimeUnavailable(f"{self._name} was closed: open it again to run it")
        self._check(inputs)
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except _FAILURES as error:
            raise RuntimeUnavailable(f"{self._name} failed in onnxruntime: {_one_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Frees the session."""
        self._session = None

    def _check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        if inputs.keys() != self._inputs.keys():
            raise ValueError(
                f"{self._name} wants the inputs {', '.join(self._inputs)}, got {', '.join(inputs) or 'none'}"
            )
        for name, (dtype, shape) in self._inputs.items():
            value = inputs[name]
            fits = value.ndim == len(shape) and all(
                not isinstance(want, int) or want == got for want, got in zip(shape, value.shape, strict=True)
            )
            if not fits or (dtype is not None and value.dtype != dtype):
                found, wanted = (", ".join(map(str, sizes)) for sizes in (value.shape, shape))
                raise ValueError(
                    f"{self._name}: input {name!r} is {value.dtype} [{found}], want {dtype} [{wanted}]"
                )


def open(artifact: Path, device: str, threads: int | None = None, *, low_memory: bool = False) -> OrtRuntime:
    """Opens an ONNX file; see `sam3i_edge.runtimes.open_runtime`."""
    if not artifact.is_file():
        raise ArtifactError(f"the graph {artifact} does not exist: copy or export the bundle again")
    try:
        session = _session(os.fspath(artifact), device, threads, low_memory)
    except _FAILURES as error:
        raise ArtifactError(f"onnxruntime cannot open {artifact}: {_one_line(error)}") from error
    return OrtRuntime(session, artifact.name)


@functools.cache
def probe(device: str) -> None:
    """Runs a graph of one Add on `device`; see `sam3i_edge.runtimes.probe`."""
    one, version = np.ones(1, np.float32), onnxruntime.__version__
    try:
        (two,) = _session(_add_graph(), device, 1).run(["y"], {"x": one})
    except _FAILURES as error:
        raise RuntimeUnavailable(
            f"onnxruntime {version} is installed but does not run on {device}: {_one_line(error)}"
        ) from error
    if two.tolist() != [2.0]:
        raise RuntimeUnavailable(f"onnxruntime {version} computes 1 + 1 = {two.tolist()[0]} on {device}")


def _session(
    model: str | bytes, device: str, threads: int | None, low_memory: bool = False
) -> onnxruntime.InferenceSession:
    if device not in _PROVIDERS:
        raise RuntimeUnavailable(f"onnxruntime runs on {', '.join(_PROVIDERS)} here, not on {device!r}")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Left to itself it counts the machine's cores, also those that this process may not use.
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    # Threads that wait by spinning fight with each other (each graph has its own) and with what else the
    # device does: on two busy cores one more instruction took 160 to 190 ms with spinning, 51 without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if low_memory:
        # Weights stay in the mapped data file instead of being copied into a faster order, and what a step
        # has used goes back at once: the arena grows by powers of two.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(model, options, providers=_PROVIDERS[device])
    session.disable_fallback()
    return session


def usable_cores() -> int:
    """Gives the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _add_graph() -> bytes:
    """Encodes the ONNX model y = x + x for x float32 [1]; the base install has no onnx package to do it.

    Numbers are field numbers of onnx.proto (ModelProto, GraphProto, NodeProto, ValueInfoProto, TypeProto);
    a field is its number and wire type in one byte, then a byte or a counted string.
    """

    def number(field: int, value: int) -> bytes:
        return bytes((field << 3, value))

    def block(field: int, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return bytes((field << 3 | 2, len(content))) + content

    float_1 = block(1, number(1, 1), block(2, block(1, number(1, 1))))  # tensor: FLOAT, shape: one dim of 1
    node = block(1, block(1, b"x"), block(1, b"x"), block(2, b"y"), block(4, b"Add"))
    values = block(11, block(1, b"x"), block(2, float_1)), block(12, block(1, b"y"), block(2, float_1))
    graph = block(7, node, block(2, b"probe"), *values)
    return number(1, 8) + graph + block(8, number(2, 17))  # IR version 8, opset 17
