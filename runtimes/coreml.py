"""Core ML on macOS, through coremltools.

Core ML knows neither bool nor int64 inputs and speaks of images as pixel buffers. A package therefore holds
in its metadata what the graph takes everywhere else (`Interface`), so that this runtime takes and gives the
same arrays as the others.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.install_hint import install_hint

INTERFACE_KEY = "com.sam3i-edge.interface"

# device -> member of coremltools.ComputeUnit
_UNITS = {
    "cpu": "CPU_ONLY",
    "gpu": "CPU_AND_GPU",
    "neural-engine": "CPU_AND_NE",
    "apple": "ALL",
}

_SLACK = 0.01  # grey levels that a pixel value may lie beside a whole one


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: NumPy dtype name as the graph has it, and shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An input that the package takes as a pixel buffer.

    Attributes:
        name: of the package's input.
        replaces: the graph's input: float32 [1, 3, S, S], grey levels times `scale` plus `bias`.
        scale: same for all channels.
        bias: of red, green and blue.
    """

    name: str
    replaces: str
    scale: float
    bias: tuple[float, float, float]

    def pixels(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The picture, uint8 [S, S, 3], of normalised pixel values [1, 3, S, S].

        Raises:
            ValueError: the values are no normalised grey levels 0..255.
        """
        levels = (values[0].transpose(1, 2, 0).astype(np.float64) - self.bias) / self.scale
        whole = np.rint(levels)
        if not (np.abs(levels - whole) <= _SLACK).all() or whole.min() < 0 or whole.max() > 255:
            raise ValueError(
                f"{self.replaces} goes into a pixel buffer of 8 bits and must be made of whole grey levels "
                "0..255, times "
                f"{self.scale:g} plus {self.bias}: normalise a uint8 image, or export without an image input"
            )
        picture: NDArray[np.uint8] = whole.astype(np.uint8)
        return picture


@dataclass(frozen=True, slots=True)
class Interface:
    """What a graph takes and gives, whatever Core ML makes of it."""

    graph: str
    inputs: dict[str, Port]
    outputs: dict[str, Port]
    image: ImageInput | None = None

    def to_json(self) -> str:
        """For the package's metadata."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], package: str) -> Interface:
        """Reads what `to_json` wrote.

        Raises:
            ArtifactError: the package holds none; it was not made by sam3i-edge.
        """
        try:
            content = json.loads(metadata[INTERFACE_KEY])
            inputs, outputs = (
                {name: Port(port["dtype"], tuple(port["shape"])) for name, port in content[side].items()}
                for side in ("inputs", "outputs")
            )
            image = content["image"]
            return cls(
                content["graph"],
                inputs,
                outputs,
                ImageInput(image["name"], image["replaces"], image["scale"], tuple(image["bias"]))
                if image
                else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"{package} lacks the entry {INTERFACE_KEY} in its metadata, or it is damaged: "
                "export it with sam3i-edge"
            ) from error

    def check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Raises ValueError where inputs are not those of the graph."""
        if inputs.keys() != self.inputs.keys():
            raise ValueError(
                f"{self.graph} wants the inputs {', '.join(self.inputs)}, got {', '.join(inputs) or 'none'}"
            )
        for name, port in self.inputs.items():
            value = inputs[name]
            if value.dtype != port.dtype or value.shape != port.shape:
                raise ValueError(
                    f"{self.graph}: input {name!r} is {value.dtype} {list(value.shape)}, "
                    f"want {port.dtype} {list(port.shape)}"
                )

    def plain(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The inputs in dtypes that Core ML knows: int64 and bool become int32."""
        return {
            name: np.ascontiguousarray(value, np.int32 if value.dtype.kind in "bi" else np.float32)
            for name, value in inputs.items()
        }

    def restore(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Core ML's outputs in the dtypes of the graph."""
        return {name: np.asarray(outputs[name]).astype(port.dtype) for name, port in self.outputs.items()}


class CoreMLRuntime:
    """One package in Core ML. Not thread-safe by contract, see `Runtime`."""

    def __init__(self, model: Any, name: str, interface: Interface) -> None:
        self._model = model
        self._name, self._interface = name, interface

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph once; see `Runtime.run`."""
        if self._model is None:
            raise RuntimeUnavailable(f"{self._name} was closed: open it again to run it")
        self._interface.check(inputs)
        image = self._interface.image
        given: dict[str, Any] = self._interface.plain(inputs)
        if image is not None:
            given[image.name] = Image.fromarray(image.pixels(given.pop(image.replaces)))
        try:
            outputs = self._model.predict(given)
        except RuntimeError as error:  # what coremltools' bridge raises for every failure
            raise RuntimeUnavailable(f"{self._name} failed in Core ML: {_one_line(error)}") from error
        return self._interface.restore(outputs)

    def close(self) -> None:
        """Frees the model."""
        self._model = None


def open(
    artifact: Path, device: str, threads: int | None = None, *, low_memory: bool = False
) -> CoreMLRuntime:
    """Opens a package; see `sam3i_edge.runtimes.open_runtime`.

    Core ML maps weights and chooses its threads itself: `low_memory` changes nothing here.

    Raises:
        ValueError: `threads` is given.
    """
    if threads is not None:
        raise ValueError(f"Core ML chooses its threads itself: leave threads={threads} out")
    coremltools = _coremltools(device)
    if not (artifact / "Manifest.json").is_file():
        raise ArtifactError(f"the package {artifact} does not exist: copy or export the bundle again")
    try:
        model = coremltools.models.MLModel(
            str(artifact), compute_units=getattr(coremltools.ComputeUnit, _UNITS[device])
        )
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(f"Core ML cannot open {artifact}: {_one_line(error)}") from error
    interface = Interface.from_metadata(model.user_defined_metadata, artifact.name)
    return CoreMLRuntime(model, artifact.name, interface)


@functools.cache
def probe(device: str) -> None:
    """Runs a program of one addition on `device`; see `sam3i_edge.runtimes.probe`."""
    coremltools = _coremltools(device)
    builder = coremltools.converters.mil.Builder

    @builder.program(input_specs=[builder.TensorSpec(shape=(1,))])  # type: ignore[untyped-decorator]
    def double(x: Any) -> Any:
        return builder.add(x=x, y=x, name="y")

    version = coremltools.__version__
    try:
        model = coremltools.convert(
            double,
            convert_to="mlprogram",
            compute_units=getattr(coremltools.ComputeUnit, _UNITS[device]),
        )
        (two,) = np.ravel(model.predict({"x": np.ones(1, np.float32)})["y"]).tolist()
    except RuntimeError as error:
        raise RuntimeUnavailable(
            f"coremltools {version} is installed but Core ML does not run on {device}: {_one_line(error)}"
        ) from error
    if two != 2.0:
        raise RuntimeUnavailable(f"Core ML (coremltools {version}) computes 1 + 1 = {two} on {device}")


def _coremltools(device: str) -> Any:
    """The package, where it can predict: its import takes seconds, so refusals come first."""
    if device not in _UNITS:
        raise RuntimeUnavailable(f"Core ML runs on {', '.join(_UNITS)}, not on {device!r}")
    if sys.platform != "darwin":
        raise RuntimeUnavailable(
            f"Core ML runs on macOS only, this is {sys.platform}: use runtime 'onnxruntime' here"
        )
    try:
        import coremltools
    except ImportError as missing:
        raise RuntimeUnavailable(
            f"runtime 'coreml' cannot be imported ({missing}): {install_hint('coreml')}"
        ) from missing
    return coremltools


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
