"""An evaluator of Core ML packages, for machines without Core ML.

It reads a package from disk, weights included, and walks the operations of its ML program: compressed weights
decoded, each operator computed in float32 by its definition, and what an operation stores rounded to its
type, float16 above all.

This proves that the package holds the right graph and the right numbers, and that float16 is wide enough for
what passes between operations. It does not prove what Apple's hardware makes of it: the Neural Engine's
arithmetic inside an operation (order and width of sums, table-driven functions), which unit runs what, and
latency are known on a Mac only (`swift/check_coreml.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sam3i_edge.errors import ArtifactError, ExportError, RuntimeUnavailable
from sam3i_edge.export.coreml.mil_ops import OPERATORS, Operands
from sam3i_edge.runtimes.coreml import Interface

_CONSTANTS = ("const", "constexpr_affine_dequantize", "constexpr_blockwise_shift_scale")


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """A compressed weight as the package holds it.

    Attributes:
        name: of the operation that decodes it.
        integers: int8, 4-bit values too.
        scales: of as many dimensions, 1 or a divisor of the integers' size in each.
        zeros: like `scales`, or None where all are 0.
    """

    name: str
    integers: NDArray[np.int8]
    scales: NDArray[np.floating[Any]]
    zeros: NDArray[np.int8] | None = None

    def key(self) -> tuple[Any, ...]:
        """Equal for equal integers, scales and zero points, whatever the name and the scales' dtype."""
        parts = [self.integers.astype(np.int8), self.scales.astype(np.float32)]
        if self.zeros is not None:
            parts.append(self.zeros)
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))
        return (self.integers.shape, self.scales.shape, digest.hexdigest())


class MilProgram:
    """One function of a package, evaluated on the CPU. It has the methods of `sam3i_edge.runtimes.Runtime`.

    Args:
        package: an `.mlpackage`.
        function: of a multifunction package; None for its default.

    Raises:
        ArtifactError: the package is missing, damaged, or was not made by sam3i-edge.
        ExportError: it holds an operator that has no reference.
    """

    def __init__(self, package: Path, function: str | None = None) -> None:
        self.name = package.name
        metadata, functions, default = _read(package)
        chosen = function or default
        if chosen not in functions:
            raise ArtifactError(f"{package} has the functions {', '.join(functions)}, not {chosen!r}")
        self._function: Any = functions[chosen]
        self.interface = Interface.from_metadata(metadata, package.name)
        self._constants: dict[str, torch.Tensor] = {}
        self._steps: list[Any] = []
        for op in self._function.operations:
            if op.op_type != "const" and op.op_type not in OPERATORS:
                raise ExportError(
                    f"{package.name} holds the operator {op.op_type!r} (operation {op.name!r}), which has no "
                    "reference: add it to export/coreml/mil_ops.py, with a test"
                )
            if op.op_type == "const":
                value = op.outputs[0].val
                if not isinstance(value, str):
                    self._constants[op.outputs[0].name] = _to_tensor(np.asarray(value))
            elif op.op_type in _CONSTANTS:
                (self._constants[op.outputs[0].name],) = _evaluate(op, self._constants)
            else:
                self._steps.append(op)
        self._dead = self._last_uses()

    @property
    def inputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The program's own inputs: name -> type and shape."""
        return {name: (_type(var), tuple(var.shape)) for name, var in self._function.inputs.items()}

    @property
    def outputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The program's own outputs: name -> type and shape."""
        return {var.name: (_type(var), tuple(var.shape)) for var in self._function.outputs}

    def census(self) -> Counter[str]:
        """How many operations of each kind it has, constants left out."""
        return Counter(op.op_type for op in self._function.operations if op.op_type != "const")

    def kinds_by_type(self) -> dict[str, Counter[str]]:
        """Type of the first output -> how many operations of each kind give it."""
        found: dict[str, Counter[str]] = {}
        for op in self._steps:
            found.setdefault(_type(op.outputs[0]), Counter())[op.op_type] += 1
        return found

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of everything that an operation gives."""
        for op in self._steps:
            for var in op.outputs:
                yield var.name, tuple(var.shape)

    def quantized_weights(self) -> list[QuantizedWeight]:
        """The compressed weights, from the file."""
        found = []
        for op in self._function.operations:
            if op.op_type == "constexpr_affine_dequantize":
                data = np.asarray(op.quantized_data.val)
                shape = [1] * data.ndim
                shape[int(op.axis.val)] = -1
                scales = np.asarray(op.scale.val).reshape(shape)
                found.append(_quantized(op, data, scales, np.asarray(op.zero_point.val)))
            elif op.op_type == "constexpr_blockwise_shift_scale":
                zeros = None if op.offset is None else np.asarray(op.offset.val)
                found.append(_quantized(op, np.asarray(op.data.val), np.asarray(op.scale.val), zeros))
        return found

    def activation_steps(self) -> set[tuple[float, int]]:
        """Scales of quantized activations, with the steps below zero; int8 around -128 comes as uint8."""
        return {
            (
                float(op.scale.val),
                (0 if op.zero_point is None else int(op.zero_point.val)) - np.iinfo(op.output_dtype.val).min,
            )
            for op in self._steps
            if op.op_type == "quantize"
        }

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Evaluates the program once; see `Runtime.run`.

        Args:
            inputs: as the graph has them, whatever the package made of their dtypes.

        Raises:
            ValueError: inputs are not those of the graph.
            ExportError: an operation gives another shape or type than the program says, meets a parameter
                that its reference does not know, or leaves what float16 can hold.
        """
        if self._function is None:
            raise RuntimeUnavailable(f"{self.name} was closed: open it again to run it")
        self.interface.check(inputs)
        plain = self.interface.plain(inputs)
        image = self.interface.image
        if image is not None:
            pixels = image.pixels(plain.pop(image.replaces))
            plain[image.name] = pixels.transpose(2, 0, 1)[None].astype(np.float32)
        values = dict(self._constants)
        for name, var in self._function.inputs.items():
            values[name] = _round(_to_tensor(plain[name]), _type(var))
        with torch.no_grad():
            for op, dead in zip(self._steps, self._dead, strict=True):
                for var, value in zip(op.outputs, _evaluate(op, values), strict=True):
                    values[var.name] = value
                    if _type(var) == "fp16" and not value.isfinite().all():
                        raise ExportError(
                            f"{self.name}: the {op.op_type} {var.name!r} leaves what float16 holds (65,504): "
                            "keep its kind in float32 by PackageOptions(float32_ops=), or export fp32"
                        )
                for name in dead:
                    del values[name]
        found = {var.name: values[var.name].numpy() for var in self._function.outputs}
        return self.interface.restore(found)

    def close(self) -> None:
        """Frees program and weights."""
        self._function = None
        self._constants, self._steps, self._dead = {}, [], []

    def _last_uses(self) -> list[list[str]]:
        """For each step the values that nothing reads after it."""
        live = {name for name, _ in self.shapes()} | self._function.inputs.keys()
        live -= {var.name for var in self._function.outputs}
        dead = []
        for op in reversed(self._steps):
            names = {var.name for var in op.outputs}
            for given in op.inputs.values():
                names |= {var.name for var in (given if isinstance(given, (list, tuple)) else [given])}
            dead.append(sorted(names & live))
            live -= names
        return dead[::-1]


@dataclass(frozen=True, slots=True)
class MilGraphs:
    """Packages as a `GraphSource`, so that the agreement gate runs on them.

    Attributes:
        paths: graph name -> package.
    """

    paths: Mapping[str, Path]

    @contextlib.contextmanager
    def open(
        self, graph: str
    ) -> Iterator[Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]]:
        """One graph, read from disk and kept until the block ends."""
        program = MilProgram(self.paths[graph])
        try:
            yield program.run
        finally:
            program.close()


def _read(package: Path) -> tuple[Mapping[str, str], dict[str, Any], str]:
    """Metadata, functions and the default function's name of a package."""
    weights = package / "Data" / "com.apple.CoreML" / "weights"
    if not (package / "Manifest.json").is_file():
        raise ArtifactError(f"the package {package} does not exist: export it again")
    with quiet():
        from coremltools.converters.mil.frontend.milproto.load import load
        from coremltools.models.utils import load_spec
        from google.protobuf.message import DecodeError

        try:
            spec = load_spec(str(package))
            program = load(spec, spec.specificationVersion, str(weights))
        except (DecodeError, OSError, RuntimeError, ValueError, KeyError) as error:
            raise ArtifactError(f"{package} is damaged: {' '.join(str(error).split())}") from error
    default = spec.description.defaultFunctionName or "main"
    return dict(spec.description.metadata.userDefined), dict(program.functions), default


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps coremltools' progress bars and its notes on versions off the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("coremltools", "torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _quantized(
    op: Any, data: NDArray[Any], scales: NDArray[Any], zeros: NDArray[Any] | None
) -> QuantizedWeight:
    if zeros is not None:
        zeros = zeros.astype(np.int8) if zeros.any() else None
    return QuantizedWeight(op.name, data.astype(np.int8), scales, zeros)


def _type(var: Any) -> str:
    from coremltools.converters.mil.mil import types

    return str(types.builtin_to_string(var.dtype))


def _to_tensor(array: NDArray[Any]) -> torch.Tensor:
    """Floats as float32, booleans as they are, 8-bit integers as int8, others as int32."""
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float32))
    if array.dtype == np.bool_:
        return torch.from_numpy(array.copy())
    return torch.from_numpy(array.astype(np.int8 if array.dtype == np.int8 else np.int32))


def _round(value: torch.Tensor, dtype: str) -> torch.Tensor:
    return value.half().float() if dtype == "fp16" else value


def _evaluate(op: Any, values: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """What an operation gives, as the program holds it: of the shapes and types that it declares."""
    given = OPERATORS[op.op_type](Operands(op, values))
    given = given if isinstance(given, tuple) else (given,)
    stored = []
    for var, value in zip(op.outputs, given, strict=True):
        dtype = _type(var)
        kind = "float" if value.is_floating_point() else "bool" if value.dtype == torch.bool else "int"
        wanted = "float" if dtype.startswith("fp") else "bool" if dtype == "bool" else "int"
        if tuple(value.shape) != tuple(var.shape) or kind != wanted:
            raise ExportError(
                f"operation {op.name!r} ({op.op_type}) gives {kind} {list(value.shape)}, the program says "
                f"{dtype} {list(var.shape)}"
            )
        stored.append(_round(value, dtype))
    return stored
