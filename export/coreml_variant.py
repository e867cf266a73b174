"""The Core ML variant of a bundle, judged by the evaluator that needs no Mac."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from sam3i_edge import __version__
from sam3i_edge.export.mil_reference import MilGraphs
from sam3i_edge.export.mlpackage import PackageOptions, export_mlpackage
from sam3i_edge.export.parity import Agreement
from sam3i_edge.export.variant import Gate
from sam3i_edge.manifest import Variant


def write_variant(
    folder: Path, gate: Gate, precision: str, quantized: Path | None = None
) -> tuple[dict[str, Variant], Agreement]:
    """Exports packages whose image encoder takes a pixel buffer, and compares them.

    What the gate proves is the program and its numbers as they lie on disk, and nothing of the arithmetic or
    speed of Apple's hardware (`sam3i_edge.export.mil_reference`).

    Args:
        folder: of the bundle being written.
        gate: what it must agree with.
        precision: "fp32", "fp16", or that of `quantized`.
        quantized: file of the `QuantSpec`, for a quantized variant; its integers are read back and compared.

    Returns:
        The variant under its name, and its agreement.

    Raises:
        ParityError, ExportError: as in `sam3i_edge.export.variant.write_variant`.
    """
    name = f"coreml-{precision}"
    place = folder / name
    place.mkdir()
    options = PackageOptions(precision=precision, image=gate.preprocessing)  # type: ignore[arg-type]
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
    gate.tell(f"comparing {name} with the float model")
    graphs = MilGraphs({graph: place / file for graph, file in files.items()})
    agreement = gate.pass_or_raise(graphs, "evaluator", precision)
    variant = Variant(
        runtime="coreml",
        precision=precision,
        graphs={graph: f"{name}/{file}" for graph, file in files.items()},
        boxes=gate.boxes,
        quant_spec=None if quantized is None else quantized.relative_to(folder).as_posix(),
        agreement=agreement.to_dict(),
        versions={"sam3i-edge": __version__, **{p: version(p) for p in ("torch", "coremltools")}},
    )
    return {name: variant}, agreement
