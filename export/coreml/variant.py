"""The Core ML variant of a bundle, judged by the evaluator that needs no Mac."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sam3i_edge import __version__
from sam3i_edge.agreement import Agreement
from sam3i_edge.bundle.manifest import Variant
from sam3i_edge.errors import ExportError
from sam3i_edge.export.coreml.mil_reference import MilGraphs, MilProgram, QuantizedWeight
from sam3i_edge.export.coreml.package import PackageOptions, export_mlpackage
from sam3i_edge.export.gate import Gate
from sam3i_edge.export.isolated import call
from sam3i_edge.quantize.spec import QuantSpec


def write_variant(
    folder: Path, gate: Gate, precision: str, quantized: Path | None = None
) -> tuple[dict[str, Variant], Agreement]:
    """Exports packages and compares them; the image encoder takes a pixel buffer where that is possible.

    It is where the normalisation has one deviation for all channels.

    What the gate proves is the program and its numbers as they lie on disk, and nothing of the arithmetic or
    speed of Apple's hardware (`sam3i_edge.export.coreml.mil_reference`).

    Args:
        folder: of the bundle being written.
        gate: what it must agree with.
        precision: "fp32", "fp16", or that of `quantized`.
        quantized: file of the `QuantSpec`, for a quantized variant; its integers are read back and compared.

    Returns:
        The variant under its name, and its agreement.

    Raises:
        ParityError, ExportError: as in `sam3i_edge.export.gate.write_variant`.
    """
    name = f"coreml-{precision}"
    place = folder / name
    place.mkdir()
    image = gate.preprocessing if len(set(gate.preprocessing.std)) == 1 else None
    if image is None:
        gate.tell("deviations differ by channel: the image encoder takes pixel_values and no pixel buffer")
    options = PackageOptions(precision=precision, image=image)  # type: ignore[arg-type]
    files = export_mlpackage(
        gate.weights,
        gate.config,
        place,
        options,
        gate.boxes,
        quantized=quantized,
        isolate=gate.isolate,
        progress=gate.done("converted"),
    )
    paths = {graph: place / file for graph, file in files.items()}
    figures: dict[str, float] = {}
    if quantized is not None:
        figures["equal_layers"] = check_integers(QuantSpec.load(quantized), paths, isolate=gate.isolate)
    gate.tell(f"comparing {name} with the float model")
    graphs = MilGraphs(paths)
    agreement = gate.pass_or_raise(graphs, "evaluator", precision)
    variant = Variant(
        runtime="coreml",
        precision=precision,
        graphs={graph: f"{name}/{file}" for graph, file in files.items()},
        boxes=gate.boxes,
        quant_spec=None if quantized is None else quantized.relative_to(folder).as_posix(),
        agreement={**agreement.to_dict(), **figures},
        versions={"sam3i-edge": __version__, **{p: version(p) for p in ("torch", "coremltools")}},
    )
    return {name: variant}, agreement


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
