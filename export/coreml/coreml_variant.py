"""The Core ML variant of a bundle, judged by the evaluator that needs no Mac."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sam3i_edge.errors import ExportError
from sam3i_edge.export.coreml.mil_reference import MilGraphs, MilProgram, QuantizedWeight
from sam3i_edge.export.coreml.package import PackageOptions, export_mlpackage
from sam3i_edge.export.gate import Gate
from sam3i_edge.export.isolated import call
from sam3i_edge.export.targets import Written
from sam3i_edge.quantize.spec import QuantSpec


def write(place: Path, gate: Gate, precision: str, quantized: Path | None) -> Written:
    """Exports packages and reads integers back; see `sam3i_edge.export.targets.Target`.

    The image encoder takes a pixel buffer where the normalisation has one deviation for all channels. What
    the gate proves is the program and its numbers as they lie on disk, and nothing of the arithmetic or speed
    of Apple's hardware (`sam3i_edge.export.coreml.mil_reference`).

    Raises:
        ExportError: integers or scales of the spec are in no package.
    """
    image = gate.preprocessing if len(set(gate.preprocessing.std)) == 1 else None
    if image is None:
        gate.tell(
            "deviations differ by channel: the image encoder takes pixel_values and no pixel buffer", 1.0
        )
    files = export_mlpackage(
        gate.weights,
        gate.config,
        place,
        PackageOptions(precision=precision, image=image),  # type: ignore[arg-type]
        gate.boxes,
        quantized=quantized,
        isolate=gate.isolate,
        progress=gate.tell,
    )
    figures: dict[str, float] = {}
    if quantized is not None:
        paths = {graph: place / file for graph, file in files.items()}
        figures["equal_layers"] = check_integers(QuantSpec.load(quantized), paths, isolate=gate.isolate)
    return Written(files=files, source=MilGraphs, figures=figures)


def check_integers(spec: QuantSpec, packages: Mapping[str, Path], *, isolate: bool = False) -> int:
    """Looks for the integers and scales of the spec in packages, by content, as Core ML renames weights.

    Args:
        spec: what was exported.
        packages: graph name -> package.
        isolate: read each package in a process of its own.

    Returns:
        The number of layers found; that is all of them.

    Raises:
        ExportError: a layer is in no package.
    """
    held: set[tuple[Any, ...]] = set()
    for path in packages.values():
        held |= call(_weights_of, path, isolate=isolate)[0]
    missing = sorted(name for name in spec.layers if _key(spec, name) not in held)
    if missing:
        raise ExportError(
            f"the integers or scales of {len(missing)} quantized layers are in no package, the first is "
            f"{missing[0]}"
        )
    return len(spec.layers)


def _weights_of(path: Path) -> set[tuple[Any, ...]]:
    return {weight.key() for weight in MilProgram(path).quantized_weights()}


def _key(spec: QuantSpec, name: str) -> tuple[Any, ...]:
    layer = spec.layers[name]
    integers, scale = (spec.tensors[f"{name}.{part}"].numpy() for part in ("weight", "weight_scale"))
    if not layer.group:
        shape = [1] * integers.ndim
        shape[1 if layer.kind == "conv_transpose2d" else 0] = -1
        scale = scale.reshape(shape)
    return QuantizedWeight(name, integers, scale).key()
