"""ONNX Runtime: on the CPU, on NVIDIA GPUs through CUDA, and on Jetson through TensorRT.

Graphs with a data file beside them (`weights.data`) load it from the graph's own folder. A device has one
execution provider, and no node may run on another: what the provider cannot run is an error.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from sam3i_edge.devices.machine import usable_cores
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.runtimes import Progress, engine_cache
from sam3i_edge.runtimes.tiny_graph import add_graph as _add_graph

# device -> its execution provider and options. Never a second one: ONNX Runtime would fall back silently.
_PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # TF32 is on by default, and its 10 bits of mantissa are not fp32.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}),
    "jetson": ("TensorrtExecutionProvider", {"trt_context_memory_sharing_enable": "True"}),
}
_ENGINES = ("jetson",)  # devices that build engines
_BROUGHT = b"EPContext"  # the operator that holds or names an engine, which TensorRT would deserialise

# precision -> what TensorRT is told. Norms stay in float32; for the softmax the provider has no such option.
_PRECISIONS: dict[str, dict[str, str]] = {
    "fp32": {"trt_fp16_enable": "False"},
    "fp16": {"trt_fp16_enable": "True", "trt_layer_norm_fp32_fallback": "True"},
}

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

# ONNX Runtime's exceptions share no base but Exception; names and messages that are no UTF-8 are Python's.
_FAILURES: tuple[type[Exception], ...] = (
    *(value for value in vars(_state).values() if isinstance(value, type) and issubclass(value, Exception)),
    UnicodeDecodeError,
)


def _waiting(version: str) -> dict[str, str]:
    """How a session's threads wait for the next operator: they spin for 50 us, then sleep, also between runs.

    Each graph has threads of its own. Those that spin on fight with each other and with what else the device
    does; those that sleep at once have to be woken some hundred times a run (docs/performance.md). ONNX
    Runtime before 1.26 knows no duration, so there they sleep at once.
    """
    limited = tuple(map(int, version.split(".")[:2])) >= (1, 26)
    return {
        "session.intra_op.allow_spinning": str(int(limited)),
        "session.intra_op.spin_duration_us": "50",
        "session.force_spinning_stop": "1",
    }


WAITING: Final = _waiting(onnxruntime.__version__)


class OrtRuntime:
    """One graph in one ONNX Runtime session. Not thread-safe by contract, see `Runtime`."""

    def __init__(self, session: onnxruntime.InferenceSession, name: str, device: str = "cpu") -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._name = name
        self._device = device
        self._binding = None if device == "cpu" else Binding(session, name, "cuda")
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
            if self._binding is not None:
                return self._binding.run(inputs)
            values = self._session.run(self._outputs, dict(inputs))
        except _FAILURES as error:
            gone = "" if self._device == "cpu" else "; ask 'sam3i-edge doctor' what still runs"
            raise RuntimeUnavailable(
                f"{self._name} failed in onnxruntime: {_one_line(error)}{gone}"
            ) from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Frees the session."""
        self._binding = None
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


class Binding:
    """Inputs and outputs that stay where they are on the device from run to run. Not thread-safe."""

    def __init__(self, session: onnxruntime.InferenceSession, name: str, memory: str) -> None:
        """Makes the buffers.

        Args:
            session: of a graph with static shapes.
            name: the graph's, for messages.
            memory: ONNX Runtime's name of the device's memory: "cuda" or "cpu".

        Raises:
            ArtifactError: a shape is not static, or a type is not known.
        """
        self._session = session
        self._binding = session.io_binding()
        self._inputs = {i.name: self._buffer(i, name, memory) for i in session.get_inputs()}
        self._outputs = {o.name: self._buffer(o, name, memory) for o in session.get_outputs()}
        for key, value in self._inputs.items():
            self._binding.bind_ortvalue_input(key, value)
        for key, value in self._outputs.items():
            self._binding.bind_ortvalue_output(key, value)

    @staticmethod
    def _buffer(slot: Any, name: str, memory: str) -> onnxruntime.OrtValue:
        if slot.type not in _DTYPES or not all(isinstance(side, int) for side in slot.shape):
            raise ArtifactError(
                f"{name}: {slot.name!r} is {slot.type} {slot.shape}, and a GPU wants static shapes: "
                "export the bundle again"
            )
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(slot.shape, _DTYPES[slot.type], memory, 0)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Copies the inputs in, runs, and copies the outputs out."""
        for key, value in self._inputs.items():
            value.update_inplace(np.ascontiguousarray(inputs[key]))
        self._session.run_with_iobinding(self._binding)
        # On the CPU `numpy` gives a view, which the next run would overwrite.
        return {key: np.array(value.numpy()) for key, value in self._outputs.items()}


def open(
    artifact: Path,
    device: str,
    threads: int | None = None,
    *,
    low_memory: bool = False,
    precision: str | None = None,
) -> OrtRuntime:
    """Opens an ONNX file; see `sam3i_edge.runtimes.open_runtime`.

    On a device that builds engines it builds this graph's first, unless `prepare` or an earlier `open` did.
    """
    if not artifact.is_file():
        raise ArtifactError(f"the graph {artifact} does not exist: copy or export the bundle again")
    if device in _ENGINES:
        return _open_engine(artifact, device, threads, precision or "fp32")
    try:
        session = _session(os.fspath(artifact), device, threads, low_memory)
        return OrtRuntime(session, artifact.name, device)
    except _FAILURES as error:
        raise ArtifactError(f"onnxruntime cannot open {artifact}: {_one_line(error)}") from error


def prepare(artifact: Path, device: str, precision: str, progress: Progress | None = None) -> None:
    """Builds the engine of a graph and keeps it; see `sam3i_edge.runtimes.prepare`."""
    if device in _ENGINES:
        _engine(artifact, device, None, precision, progress)


def _open_engine(artifact: Path, device: str, threads: int | None, precision: str) -> OrtRuntime:
    folder = _engine(artifact, device, threads, precision, None)
    engine = _engine_options(folder, precision)
    try:
        session = _session(os.fspath(artifact), device, threads, engine=engine)
    except _FAILURES as error:
        # The files are as they were written, and TensorRT refuses them: a changed driver does that.
        engine_cache.discard(folder, _one_line(error))
        folder = _engine(artifact, device, threads, precision, None)
        try:
            session = _session(
                os.fspath(artifact), device, threads, engine=_engine_options(folder, precision)
            )
        except _FAILURES as again:
            raise RuntimeUnavailable(
                f"onnxruntime cannot open the engine of {artifact} that it built: {_one_line(again)}"
            ) from again
    return OrtRuntime(session, artifact.name, device)


def _engine(
    artifact: Path, device: str, threads: int | None, precision: str, progress: Progress | None
) -> Path:
    """Gives the folder of the graph's engine, building it where there is none."""
    if precision not in _PRECISIONS:
        raise RuntimeUnavailable(
            f"onnxruntime builds engines for {device} at {', '.join(_PRECISIONS)}, not at {precision!r}"
        )
    if _BROUGHT in artifact.read_bytes():
        raise ArtifactError(
            f"{artifact} holds an engine that was built elsewhere ({_BROUGHT.decode()}), and engines are "
            "code: export the bundle again, its engines are then built on this device"
        )
    key = engine_cache.key_of(artifact, f"onnxruntime {onnxruntime.__version__}", precision)
    folder = engine_cache.find(key)
    if folder is not None:
        return folder
    engine_cache.announce(key, progress)
    with engine_cache.building(key) as folder:
        try:
            engine = _engine_options(folder, precision)
            session = _session(os.fspath(artifact), device, threads, engine=engine)
            # Some versions build when a session opens, others at its first run.
            runtime = OrtRuntime(session, artifact.name, device)
            runtime.run(_zeros(session))
        except _FAILURES as error:
            raise RuntimeUnavailable(
                f"TensorRT cannot build the engine of {artifact}: {_one_line(error)}"
            ) from error
        runtime.close()
        if not any(folder.glob("*.engine")):
            raise RuntimeUnavailable(
                f"onnxruntime {onnxruntime.__version__} kept no engine of {artifact}: TensorRT took no "
                "part of the graph. Ask for device='cpu'"
            )
    if progress is not None:
        progress(f"built the engine of {artifact.stem}", 1.0)
    return key.folder


def _engine_options(folder: Path, precision: str) -> dict[str, str]:
    return {
        **_PRECISIONS[precision],
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": os.fspath(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": os.fspath(folder),
    }


def _zeros(session: onnxruntime.InferenceSession) -> dict[str, NDArray[Any]]:
    return {i.name: np.zeros(i.shape, _DTYPES[i.type]) for i in session.get_inputs()}


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
    model: str | bytes,
    device: str,
    threads: int | None,
    low_memory: bool = False,
    engine: Mapping[str, str] | None = None,
) -> onnxruntime.InferenceSession:
    if device not in _PROVIDERS:
        raise RuntimeUnavailable(f"onnxruntime runs on {', '.join(_PROVIDERS)}, not on {device!r}")
    provider, fixed = _PROVIDERS[device]
    offered = onnxruntime.get_available_providers()
    if provider not in offered:
        raise RuntimeUnavailable(
            f"device {device!r} needs {provider}, and onnxruntime {onnxruntime.__version__} was built with "
            f"{', '.join(offered)} only: install a build for {device}, or ask for device='cpu'"
        )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Left to itself it counts the machine's cores, also those that this process may not use.
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    for name, value in WAITING.items():
        options.add_session_config_entry(name, value)
    # Left to itself it quantizes activations to int8 in front of int8 weights that are to be float.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    # What a step has used goes back at once. The arena grows by powers of two and keeps what it has: 4.2 GiB
    # for the official int8 model at 1008 px in place of 1.9, and no graph is faster with it.
    options.enable_cpu_mem_arena = False
    # From the second run on, one block for all that a run holds, with holes: 95 MiB more at 1008 px.
    options.enable_mem_pattern = False
    if low_memory:
        # Weights stay in the mapped data file instead of being copied into a faster order.
        options.add_session_config_entry("session.disable_prepacking", "1")
    if device != "cpu":
        # Nodes that the provider cannot run would go to the CPU, one by one and silently.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.log_severity_level = 3
    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(
        model, options, providers=[(provider, {**fixed, **(engine or {})})], enable_fallback=0
    )
    session.disable_fallback()
    running = session.get_providers()
    if running[0] != provider:
        raise RuntimeUnavailable(
            f"{provider} was asked for, and onnxruntime {onnxruntime.__version__} runs {', '.join(running)}: "
            "its libraries did not load; 'sam3i-edge doctor' tells more"
        )
    return session


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
