"""OpenVINO: on CPUs, and on Intel's GPUs and NPUs.

Left to itself OpenVINO changes numbers: it computes in bfloat16 on processors that have it, and quantizes
activations to int8 in front of weight-only layers. Here the precision is pinned, to float32 on a CPU unless
the graph was exported at a precision that names bfloat16, and the second is off; what the compiled graph
really uses is read back from it, see `OpenVinoRuntime.settings`.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino.exceptions import OVError
from openvino.frontend import (
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
)

from sam3i_edge.devices.machine import usable_cores
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.runtimes import BF16, mapped_pages
from sam3i_edge.runtimes.tiny_graph import add_graph as _add_graph
from sam3i_edge.user_cache import private_folder, user_cache

_log = logging.getLogger(__name__)

# Where a graph says at which precision it was exported. One that says nothing is taken for fp32.
PRECISION_KEY = ["sam3i_edge", "precision"]

# device -> OpenVINO's name. "auto" takes the device that OpenVINO's own AUTO would.
_DEVICES = {"cpu": "CPU", "intel-gpu": "GPU", "intel-npu": "NPU", "auto": "AUTO"}
_VERSION = openvino.__version__.partition("-")[0]

# Bytes of inputs and outputs, those of sam3i from 672 px on: such a graph computes in hundreds of megabytes.
_LARGE = 32 * 2**20

_DYNAMIC_QUANTIZATION = "DYNAMIC_QUANTIZATION_GROUP_SIZE"

# The frontends' exceptions share no base but Exception.
_FAILURES: tuple[type[Exception], ...] = (
    RuntimeError, OVError, GeneralFailure, InitializationFailure, NotImplementedFailure, OpConversionFailure,
    OpValidationFailure,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CompileSettings:
    """What a compiled graph uses, read back from OpenVINO.

    Attributes:
        devices: that execute it, by OpenVINO's names.
        precision: of floating point inside, such as "f32".
        dynamic_quantization: activations that share a scale where OpenVINO quantizes them by itself; 0 is
            off, None where the device does not have it.
        threads: of the CPU, None elsewhere.
        hint: what OpenVINO optimises for.
        cache: folder of compiled graphs, or None.
    """

    devices: tuple[str, ...]
    precision: str
    dynamic_quantization: int | None
    threads: int | None
    hint: str
    cache: Path | None


class OpenVinoRuntime:
    """One compiled graph. Not thread-safe by contract, see `Runtime`."""

    def __init__(self, compiled: Any, name: str, settings: CompileSettings) -> None:
        self._compiled, self._name = compiled, name
        self.settings = settings
        self._request: Any = None
        self._inputs = {
            port.get_any_name(): (np.dtype(port.get_element_type().to_dtype()), tuple(port.get_shape()))
            for port in compiled.inputs
        }
        self._outputs = [port.get_any_name() for port in compiled.outputs]
        ports = (*compiled.inputs, *compiled.outputs)
        moved = sum(port.get_element_type().size * math.prod(port.get_shape()) for port in ports)
        self._releases = settings.devices == ("CPU",) and moved >= _LARGE

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph once; see `Runtime.run`."""
        if self._compiled is None:
            raise RuntimeUnavailable(f"{self._name} was closed: open it again to run it")
        shared_core()  # raises in a forked child
        self._check(inputs)
        try:
            if self._request is None:
                self._request = self._compiled.create_infer_request()
            # Always shared: a copy would go to the memory that the run before was given, which is another's.
            self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
            # `data` is a view, which the next run overwrites.
            outputs = {
                name: np.array(self._request.get_output_tensor(n).data)
                for n, name in enumerate(self._outputs)
            }
            if self._releases:  # gives back what it computed in, and the request's copies of the outputs
                self._request = None
                self._compiled.release_memory()
            return outputs
        except _FAILURES as error:
            gone = "" if self.settings.devices == ("CPU",) else "; ask 'sam3i-edge doctor' what still runs"
            raise RuntimeUnavailable(f"{self._name} failed in openvino: {_one_line(error)}{gone}") from error

    def close(self) -> None:
        """Frees the graph."""
        self._request = self._compiled = None

    def _check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        if inputs.keys() != self._inputs.keys():
            raise ValueError(
                f"{self._name} wants the inputs {', '.join(self._inputs)}, got {', '.join(inputs) or 'none'}"
            )
        for name, (dtype, shape) in self._inputs.items():
            value = inputs[name]
            if value.dtype != dtype or value.shape != shape:
                found, wanted = (", ".join(map(str, sizes)) for sizes in (value.shape, shape))
                raise ValueError(
                    f"{self._name}: input {name!r} is {value.dtype} [{found}], want {dtype} [{wanted}]"
                )


def open(
    artifact: Path, device: str, threads: int | None = None, *, low_memory: bool = False
) -> OpenVinoRuntime:
    """Opens an IR (.xml, with its .bin beside it) or an ONNX file; see `sam3i_edge.runtimes.open_runtime`.

    Compiled graphs are kept in the user's cache folder for the devices that compile slowly, unless
    `low_memory` is set.
    """
    target = _target(device)
    if not artifact.is_file():
        raise ArtifactError(f"the graph {artifact} does not exist: copy or export the bundle again")
    if artifact.suffix == ".xml" and not _is_whole(artifact):
        # OpenVINO would try every format it knows, and some of them write to the terminal.
        raise ArtifactError(
            f"openvino cannot open {artifact}: it is no whole IR; copy or export the bundle again"
        )
    try:
        model = shared_core().read_model(artifact)
    except _FAILURES as error:
        raise ArtifactError(f"openvino cannot open {artifact}: {_one_line(error)}") from error
    if model.is_dynamic():
        raise ArtifactError(f"{artifact} has shapes that are not static: export the bundle again")
    exported = (
        str(model.get_rt_info(PRECISION_KEY).astype(str)) if model.has_rt_info(PRECISION_KEY) else "fp32"
    )
    kind = target.partition(".")[0]
    if kind == "NPU" and exported == "fp32":
        raise RuntimeUnavailable(
            f"device {device!r} computes in float16 and {artifact.name} is fp32: ask for precision='fp16'"
        )
    cache = _cache_folder() if kind != "CPU" and not low_memory else None
    compiled, settings = _compile(model, target, threads, exported, cache)
    # The CPU device has packed the weights for its kernels, and holds the file as long as the graph is open.
    mapped_pages.release(artifact.parent)
    if cache is not None:
        for path in cache.iterdir():
            path.chmod(0o600)
    return OpenVinoRuntime(compiled, artifact.name, settings)


def _cache_folder() -> Path | None:
    """The folder of compiled graphs, which only this user can have filled; else None, and a warning."""
    try:
        return private_folder(user_cache("openvino"))
    except (OSError, RuntimeUnavailable) as error:
        _log.warning("compiled graphs are not kept, each opening compiles them anew: %s", error)
        return None


def shared_core() -> Any:
    """The `openvino.Core` of this process, which stays until the process ends.

    A Core's CPU device gives the thread a stack for signals, and when it goes it puts back the stack that it
    found. Two that do not go in the reverse order of their coming leave one that was freed: the next signal,
    a Ctrl-C too, is then a segmentation fault. (`SigAltStackSetup` of OpenVINO's CPU plugin, 2026.4.1.)

    Raises:
        RuntimeUnavailable: it was made before `fork`: its threads are the parent's, and a child waits for
            them for ever.
    """
    core, process = _core()
    if process != os.getpid():
        raise RuntimeUnavailable(
            "OpenVINO was started before this process was forked, and does not work in the child: start "
            "processes with multiprocessing.get_context('spawn'), or open the Segmenter in the child only"
        )
    return core


@functools.cache
def _core() -> tuple[Any, int]:
    return openvino.Core(), os.getpid()


@functools.cache
def probe(device: str) -> None:
    """Runs a graph of one Add on `device`; see `sam3i_edge.runtimes.probe`."""
    target = _target(device)
    try:
        model = shared_core().read_model(_add_graph(), b"")
        compiled, settings = _compile(model, target, 1, "fp16" if target == "NPU" else "fp32", None)
        two = OpenVinoRuntime(compiled, "the tiny graph", settings).run({"x": np.ones(1, np.float32)})["y"]
    except _FAILURES as error:
        raise RuntimeUnavailable(
            f"openvino {_VERSION} is installed but does not run on {device}: {_one_line(error)}"
        ) from error
    if two.tolist() != [2.0]:
        raise RuntimeUnavailable(f"openvino {_VERSION} computes 1 + 1 = {two.tolist()[0]} on {device}")


def _target(device: str) -> str:
    """OpenVINO's name of a device that it finds here."""
    if device not in _DEVICES:
        raise RuntimeUnavailable(f"openvino runs on {', '.join(_DEVICES)}, not on {device!r}")
    target, core = _DEVICES[device], shared_core()
    if target == "AUTO":
        return _best()
    found = core.available_devices
    if any(name.partition(".")[0] == target for name in found):
        return target
    why = ""
    try:
        core.get_property(target, "FULL_DEVICE_NAME")
    except _FAILURES as error:
        if "Cannot load library" in str(error):
            why = f" ({_one_line(error)})"
    raise RuntimeUnavailable(
        f"openvino {_VERSION} finds {', '.join(found) or 'no device'} here and no {target}{why}: "
        "install the device's driver, or ask for device='cpu'"
    )


@functools.cache
def _best() -> str:
    """The device that AUTO picks. It does not tell what a graph that it compiled itself computes in."""
    core = shared_core()
    # AUTO starts on the CPU, and goes back there on errors, unless told.
    config = {"ENABLE_STARTUP_FALLBACK": False, "ENABLE_RUNTIME_FALLBACK": False}
    try:
        compiled = core.compile_model(core.read_model(_add_graph(), b""), "AUTO", config)
        return str(compiled.get_property("EXECUTION_DEVICES")[0])
    except _FAILURES as error:
        raise RuntimeUnavailable(f"openvino {_VERSION} finds no device: {_one_line(error)}") from error


def _compile(
    model: Any, target: str, threads: int | None, exported: str, cache: Path | None
) -> tuple[Any, CompileSettings]:
    core, kind = shared_core(), target.partition(".")[0]
    # CPUs compute a float16 graph in float32, and the NPU knows nothing wider than float16.
    wide = kind == "CPU" or (kind != "NPU" and exported == "fp32")
    precision = "f32" if wide else "f16"
    if exported.endswith(BF16):
        precision = "bf16"
        if "BF16" not in core.get_property(target, "OPTIMIZATION_CAPABILITIES"):
            raise RuntimeUnavailable(
                f"{exported} wants a processor with bfloat16 instructions, and openvino {_VERSION} finds "
                f"none on {target}: ask for precision={exported.removesuffix(BF16)!r}"
            )
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if kind == "CPU":
        config["INFERENCE_NUM_THREADS"] = threads or usable_cores()
    if cache is not None:
        config["CACHE_DIR"] = os.fspath(cache)
    try:
        if _DYNAMIC_QUANTIZATION in core.get_property(target, "SUPPORTED_PROPERTIES"):
            config[_DYNAMIC_QUANTIZATION] = 0
        compiled = core.compile_model(model, target, config)
        settings = _settings(compiled, cache)
    except _FAILURES as error:
        raise RuntimeUnavailable(f"openvino cannot compile for {target}: {_one_line(error)}") from error
    elsewhere = [name for name in settings.devices if name.partition(".")[0] != kind]
    if elsewhere:
        raise RuntimeUnavailable(f"{target} was asked for, and openvino runs on {', '.join(elsewhere)}")
    if settings.precision != precision or settings.dynamic_quantization:
        raise RuntimeUnavailable(
            f"openvino {_VERSION} was told to compute in {precision} without dynamic quantization on "
            f"{target}, and computes in {settings.precision} with groups of {settings.dynamic_quantization}: "
            "try another version, or runtime 'onnxruntime'"
        )
    return compiled, settings


def _settings(compiled: Any, cache: Path | None) -> CompileSettings:
    known = compiled.get_property("SUPPORTED_PROPERTIES")

    def read(name: str) -> Any:
        return compiled.get_property(name) if name in known else None

    group, threads = read(_DYNAMIC_QUANTIZATION), read("INFERENCE_NUM_THREADS")
    hint = compiled.get_property("PERFORMANCE_HINT")
    return CompileSettings(
        devices=tuple(name.strip("()") for name in compiled.get_property("EXECUTION_DEVICES")),
        precision=str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()),
        dynamic_quantization=None if group is None else int(group),
        threads=None if threads is None else int(threads),
        hint=str(getattr(hint, "name", hint)),
        cache=cache,
    )


def _is_whole(path: Path) -> bool:
    """Whether an IR begins and ends as one."""
    content = path.read_bytes().strip()
    return content.startswith((b"<?xml", b"<net")) and content.endswith(b"</net>")


def _one_line(error: Exception) -> str:
    """The reason without the places in OpenVINO's sources that it was passed through."""
    text = re.sub(r"(Exception from|Check '.*?' failed at) \S+:\d+:", " ", str(error))
    return " ".join(text.split())
