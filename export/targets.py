"""What a model is exported to: the table of targets, and the one way in which a variant is written."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sam3i_edge import __version__
from sam3i_edge.agreement import Agreement
from sam3i_edge.bundle.manifest import Variant
from sam3i_edge.export.gate import Gate
from sam3i_edge.export.staged import GraphSource
from sam3i_edge.runtimes import BF16

FLOAT = ("fp32", "fp16")
PRECISIONS = (*FLOAT, "int8", "int8w", "int4")
# Least share of integer multiply-adds of a variant that may be called int8.
INTEGER_SHARE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Graphs that a target wrote.

    Attributes:
        files: graph name -> file or folder inside the variant's folder.
        source: opens them from graph name -> path.
        figures: of what was read back: `equal_layers`, `integer_share`.
    """

    files: Mapping[str, str]
    source: Callable[[Mapping[str, Path]], GraphSource]
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One row of the table.

    Attributes:
        runtime: what opens its variants.
        module: has `write(place, gate, precision, quantized) -> Written`, imported when it is asked for:
            `place` is the empty folder of the variant, `quantized` the file of a `QuantSpec` or None.
        extra: of sam3i-edge, that installs what the module needs.
        packages: whose versions are recorded.
        precisions: what it can be written at.
    """

    runtime: str
    module: str
    extra: str
    packages: tuple[str, ...]
    precisions: tuple[str, ...] = PRECISIONS


TARGETS = {
    "onnx": Target(
        runtime="onnxruntime",
        module="sam3i_edge.export.onnx.onnx_variant",
        extra="export",
        packages=("torch", "onnx", "onnxscript", "onnxruntime"),
    ),
    "eager": Target(
        runtime="eager",
        module="sam3i_edge.export.eager_variant",
        extra="export",
        packages=("torch",),
    ),
    "openvino": Target(
        runtime="openvino",
        module="sam3i_edge.export.openvino.openvino_variant",
        extra="export,openvino",
        packages=("torch", "onnx", "openvino"),
        # The last is int8 with bfloat16 in between, on CPUs that have it.
        precisions=(*PRECISIONS, f"int8{BF16}"),
    ),
    "coreml": Target(
        runtime="coreml",
        module="sam3i_edge.export.coreml.coreml_variant",
        extra="export,coreml",
        packages=("torch", "coremltools"),
    ),
    "litert": Target(
        runtime="litert",
        module="sam3i_edge.export.litert.litert_variant",
        extra="export,litert",
        packages=("torch", "litert-torch", "ai-edge-litert"),
        precisions=("fp32", "fp16", "int8", "int8w"),
    ),
}
ALL_PRECISIONS = tuple(dict.fromkeys(p for target in TARGETS.values() for p in target.precisions))


def write_variant(
    folder: Path, gate: Gate, target: str, precision: str, quantized: Path | None = None
) -> tuple[str, Variant, Agreement]:
    """Exports, reads back and compares one variant.

    Args:
        folder: of the bundle being written.
        gate: what it must agree with.
        target: of `TARGETS`.
        precision: one that the target has.
        quantized: file of the `QuantSpec` inside `folder`, for a quantized variant.

    Returns:
        Its name, the variant for the manifest, and its agreement. An int8 variant that computes too little
        in integers is called mixed.

    Raises:
        ParityError: it disagrees. ExportError: its integers are not those of the spec, or it could not be
            converted. ImportError: what the target needs is not installed.
    """
    row = TARGETS[target]
    module = importlib.import_module(row.module)
    name = f"{target}-{precision}"
    place = folder / name
    place.mkdir()
    written: Written = module.write(place, gate, precision, quantized)
    share = written.figures.get("integer_share", 1.0)
    if precision in ("int8", f"int8{BF16}") and share < INTEGER_SHARE:
        precision = precision.replace("int8", "mixed")
        name = f"{target}-{precision}"
        place = place.rename(folder / name)
    source = written.source({graph: place / file for graph, file in written.files.items()})
    agreement = gate.pass_or_raise(source, name, precision)
    variant = Variant(
        runtime=row.runtime,
        precision=precision,
        graphs={graph: f"{name}/{file}" for graph, file in written.files.items()},
        boxes=gate.boxes,
        quant_spec=None if quantized is None else quantized.relative_to(folder).as_posix(),
        agreement={**agreement.to_dict(), **written.figures},
        versions={"sam3i-edge": __version__, **{package: version(package) for package in row.packages}},
    )
    return name, variant, agreement
