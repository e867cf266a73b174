"""TensorRT through its own Python package, which JetPack brings: no ONNX Runtime build is needed.

A graph is parsed from ONNX, built into an engine once and kept; an `.engine` file of this machine opens as it
is. Written against TensorRT 10.3 to 10.16. Not run on hardware yet.
"""

from __future__ import annotations

import functools
import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.devices import nvidia
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.runtimes import Progress, engine_cache
from sam3i_edge.runtimes.tiny_graph import tiny_graph, tiny_input, tiny_output

# No requirement of this package: JetPack installs it for the system's Python.
_trt: Any = importlib.import_module("tensorrt")

_PRECISIONS = ("fp32", "fp16")
_DEVICES = ("jetson", "cuda")
_ENGINE = "graph.engine"
_TIMING = "graph" + engine_cache.TIMING

# What float16 computes badly, or overflows in: softmax, and norms with the sums, squares and roots of those
# that the parser takes apart.
_FLOAT32_LAYERS = ("SOFTMAX", "NORMALIZATION", "REDUCE")


class _Logger(_trt.ILogger):  # type: ignore[misc]
    """Keeps TensorRT's last error, for messages; it would print it."""

    def __init__(self) -> None:
        super().__init__()
        self._last = ""

    def log(self, severity: Any, message: str) -> None:
        if severity in (_trt.ILogger.Severity.ERROR, _trt.ILogger.Severity.INTERNAL_ERROR):
            self._last = " ".join(message.split())

    def said(self) -> str:
        return self._last or "it gave no reason"


class _Monitor(_trt.IProgressMonitor):  # type: ignore[misc]
    """Reports the steps of the outermost phase, and stops the build on Ctrl-C or another exception.

    TensorRT swallows what its callbacks raise, so the exception is kept here.
    """

    def __init__(self, graph: str, progress: Progress | None) -> None:
        super().__init__()
        self._graph, self._progress = graph, progress
        self._steps: dict[str, int] = {}
        self.error: BaseException | None = None

    def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
        if parent is None:
            self._steps[phase] = max(1, steps)

    def step_complete(self, phase: str, step: int) -> bool:
        try:
            if phase in self._steps and self._progress is not None:
                share = (step + 1) / self._steps[phase]
                self._progress(f"building the engine of {self._graph}: {phase}", share)
        except BaseException as error:  # raised again after the build has stopped
            self.error = error
        return self.error is None

    def phase_finish(self, phase: str) -> None:
        self._steps.pop(phase, None)


class TrtRuntime:
    """One engine with its buffers. Not thread-safe, see `Runtime`."""

    def __init__(self, serialized: bytes, name: str) -> None:
        """Opens an engine.

        Raises:
            ArtifactError: it is no engine that this TensorRT and this GPU run.
            RuntimeUnavailable: the GPU gives no memory.
        """
        self._name = name
        self._logger = _Logger()
        engine = _trt.Runtime(self._logger).deserialize_cuda_engine(serialized)
        if engine is None:
            raise ArtifactError(
                f"TensorRT {_trt.__version__} cannot open {name} ({self._logger.said()}): was it built by "
                "another version, or for another GPU? Build it on this machine with Segmenter.prepare()"
            )
        self._engine = engine
        self._context = engine.create_execution_context()
        self._memory: nvidia.Memory | None = nvidia.Memory()
        self._inputs: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]] = {}
        self._outputs: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]] = {}
        for position in range(engine.num_io_tensors):
            tensor = engine.get_tensor_name(position)
            dtype = np.dtype(_trt.nptype(engine.get_tensor_dtype(tensor)))
            shape = tuple(int(side) for side in engine.get_tensor_shape(tensor))
            if min(shape, default=1) < 0:
                raise ArtifactError(f"{name}: {tensor!r} has the shape {shape}, want a static one")
            address = self._memory.allocate(max(1, dtype.itemsize * int(np.prod(shape))))
            self._context.set_tensor_address(tensor, address)
            is_input = engine.get_tensor_mode(tensor) == _trt.TensorIOMode.INPUT
            (self._inputs if is_input else self._outputs)[tensor] = (dtype, shape, address)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the engine once; see `Runtime.run`."""
        if self._memory is None:
            raise RuntimeUnavailable(f"{self._name} was closed: open it again to run it")
        self._check(inputs)
        # The copies end at `wait`, and a temporary array must live until then.
        arrays = {name: np.ascontiguousarray(inputs[name]) for name in self._inputs}
        for name, (_, _, address) in self._inputs.items():
            self._memory.upload(address, arrays[name])
        if not self._context.execute_async_v3(self._memory.stream):
            raise RuntimeUnavailable(
                f"{self._name} failed in TensorRT {_trt.__version__}: 'sam3i-edge doctor' tells whether the "
                "device still runs"
            )
        outputs = {
            name: self._memory.download(address, shape, dtype)
            for name, (dtype, shape, address) in self._outputs.items()
        }
        self._memory.wait()
        return outputs

    def close(self) -> None:
        """Frees the engine and its buffers."""
        if self._memory is not None:
            self._memory.close()
            self._memory = self._context = self._engine = None

    def _check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        if inputs.keys() != self._inputs.keys():
            raise ValueError(
                f"{self._name} wants the inputs {', '.join(self._inputs)}, got {', '.join(inputs) or 'none'}"
            )
        for name, (dtype, shape, _) in self._inputs.items():
            value = inputs[name]
            if (value.dtype, value.shape) != (dtype, shape):
                raise ValueError(
                    f"{self._name}: input {name!r} is {value.dtype} {list(value.shape)}, "
                    f"want {dtype} {list(shape)}"
                )


def open(
    artifact: Path,
    device: str,
    threads: int | None = None,
    *,
    low_memory: bool = False,
    precision: str | None = None,
) -> TrtRuntime:
    """Opens an engine, or a graph whose engine it builds unless `prepare` did.

    Args:
        artifact: an `.engine` file of this machine, or an ONNX file.
        device: "jetson" or "cuda".
        threads: of no meaning here.
        low_memory: of no meaning here.
        precision: "fp32" or "fp16", for an ONNX file.

    Raises:
        ArtifactError: the file is missing, or is nothing that TensorRT reads here.
        RuntimeUnavailable: the device is another, or the engine cannot be built.
    """
    _check_device(device)
    if not artifact.is_file():
        raise ArtifactError(f"the graph {artifact} does not exist: copy or export the bundle again")
    if artifact.suffix == ".engine":
        return TrtRuntime(artifact.read_bytes(), artifact.name)
    folder = _engine(artifact, precision or "fp32", None)
    try:
        return TrtRuntime((folder / _ENGINE).read_bytes(), artifact.stem)
    except ArtifactError as error:
        engine_cache.discard(folder, str(error))
    return TrtRuntime((_engine(artifact, precision or "fp32", None) / _ENGINE).read_bytes(), artifact.stem)


def prepare(artifact: Path, device: str, precision: str, progress: Progress | None = None) -> None:
    """Builds the engine of a graph and keeps it; see `sam3i_edge.runtimes.prepare`."""
    _check_device(device)
    if artifact.suffix != ".engine":
        _engine(artifact, precision, progress)


@functools.cache
def probe(device: str) -> None:
    """Builds and runs a tiny graph on `device`; see `sam3i_edge.runtimes.probe`."""
    _check_device(device)
    why = nvidia.gpu_missing()
    if why is not None:
        raise RuntimeUnavailable(f"TensorRT {_trt.__version__} is installed but does not run: {why}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.onnx"
        path.write_bytes(tiny_graph())
        serialized, _ = _build(path, "fp32", b"", None)
    runtime = TrtRuntime(serialized, "tiny.onnx")
    try:
        got = runtime.run({"x": tiny_input()})["y"]
    finally:
        runtime.close()
    error = float(np.abs(got - tiny_output()).max())
    if not error < 1e-2:
        raise RuntimeUnavailable(f"TensorRT {_trt.__version__} is off by {error:.2g} on {device}")


def _check_device(device: str) -> None:
    if device not in _DEVICES:
        raise RuntimeUnavailable(f"tensorrt runs on {', '.join(_DEVICES)}, not on {device!r}")


def _engine(artifact: Path, precision: str, progress: Progress | None) -> Path:
    """Gives the folder of the graph's engine, building it where there is none."""
    if precision not in _PRECISIONS:
        raise RuntimeUnavailable(f"tensorrt builds engines at {', '.join(_PRECISIONS)}, not at {precision!r}")
    key = engine_cache.key_of(artifact, f"tensorrt {_trt.__version__}", precision)
    folder = engine_cache.find(key)
    if folder is not None:
        return folder
    engine_cache.announce(key, progress)
    with engine_cache.building(key) as folder:
        known = folder / _TIMING
        serialized, timings = _build(
            artifact, precision, known.read_bytes() if known.is_file() else b"", progress
        )
        (folder / _ENGINE).write_bytes(serialized)
        (folder / _TIMING).write_bytes(timings)
    if progress is not None:
        progress(f"built the engine of {artifact.stem}", 1.0)
    return key.folder


def _build(artifact: Path, precision: str, timings: bytes, progress: Progress | None) -> tuple[bytes, bytes]:
    """Builds an engine; gives it and the timing cache."""
    logger = _Logger()
    builder = _trt.Builder(logger)
    # A graph that holds float16 says itself where: its types are kept to the letter. A float32 graph is
    # lowered here, which TensorRT 11 no longer does.
    network, _parser = _parse(builder, logger, artifact, strongly_typed=True)
    lowered = precision == "fp16" and not _holds_float16(network)
    if lowered:
        network, _parser = _parse(builder, logger, artifact, strongly_typed=False)
    config = builder.create_builder_config()
    if lowered:
        _lower(network, config)
    config.set_timing_cache(config.create_timing_cache(timings), False)
    monitor = config.progress_monitor = _Monitor(artifact.stem, progress)
    serialized = builder.build_serialized_network(network, config)
    if monitor.error is not None:
        raise monitor.error
    if serialized is None:
        raise RuntimeUnavailable(
            f"TensorRT {_trt.__version__} cannot build the engine of {artifact} at {precision}: "
            f"{logger.said()}"
        )
    return bytes(serialized), bytes(config.get_timing_cache().serialize())


def _parse(builder: Any, logger: Any, artifact: Path, *, strongly_typed: bool) -> tuple[Any, Any]:
    """Reads a graph; the network needs its parser to live."""
    flag = _trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag) if strongly_typed else 0)
    parser = _trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(artifact)):
        errors = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise ArtifactError(f"TensorRT {_trt.__version__} cannot read {artifact}: {errors}")
    return network, parser


def _holds_float16(network: Any) -> bool:
    layers = (network.get_layer(position) for position in range(network.num_layers))
    return any(
        layer.get_output(number).dtype == _trt.float16
        for layer in layers
        for number in range(layer.num_outputs)
    )


def _lower(network: Any, config: Any) -> None:
    """Lets the network compute in float16, but for softmax and norms, which obey float32."""
    if not hasattr(_trt.BuilderFlag, "FP16"):
        raise RuntimeUnavailable(
            f"TensorRT {_trt.__version__} builds fp16 from a graph in fp16 only: make that variant with "
            "'sam3i-edge export BUNDLE --to onnx --precision fp16'"
        )
    config.set_flag(_trt.BuilderFlag.FP16)
    config.set_flag(_trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    kept = {getattr(_trt.LayerType, name) for name in _FLOAT32_LAYERS}
    for position in range(network.num_layers):
        layer = network.get_layer(position)
        outputs = range(layer.num_outputs)
        # Sums of indices and masks are integers and stay so.
        if layer.type in kept and all(layer.get_output(n).dtype == _trt.float32 for n in outputs):
            layer.precision = _trt.float32
            for number in outputs:
                layer.set_output_type(number, _trt.float32)
