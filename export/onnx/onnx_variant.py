"""The variant that runs in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from sam3i_edge.errors import ExportError
from sam3i_edge.export.gate import Gate
from sam3i_edge.export.onnx.census import Census, census
from sam3i_edge.export.onnx.deconvolutions import stored
from sam3i_edge.export.onnx.graph_file import export_onnx
from sam3i_edge.export.onnx.quantized_nodes import read_integers
from sam3i_edge.export.staged import FileGraphs
from sam3i_edge.export.targets import Written
from sam3i_edge.quantize.spec import QuantSpec


def write(place: Path, gate: Gate, precision: str, quantized: Path | None) -> Written:
    """Exports the graphs and reads integers back; see `sam3i_edge.export.targets.Target`.

    Raises:
        ExportError: the integers in the files are not those of the spec.
    """
    files = export_onnx(
        gate.weights if quantized is None else quantized,
        gate.config,
        place,
        gate.boxes,
        half=precision == "fp16",
        isolate=gate.isolate,
        progress=gate.tell,
    )
    figures: dict[str, float] = {}
    if quantized is not None:
        paths = {graph: place / file for graph, file in files.items()}
        figures["equal_layers"] = check_integers(QuantSpec.load(quantized), paths)
        counted = Census(0, 0, {})
        for number, path in enumerate(paths.values()):
            gate.tell("counting integer kernels", number / len(paths))
            counted += census(path)
        figures["integer_share"] = counted.share
        gate.tell(f"integer kernels {counted.kernels}, {counted.share:.1%} of the multiply-adds", 1.0)
    return Written(files=files, source=partial(FileGraphs, runtime="onnxruntime"), figures=figures)


def check_integers(spec: QuantSpec, graphs: Mapping[str, Path]) -> int:
    """Compares the integers and scales in ONNX files with the spec's; gives the number of equal layers.

    Raises:
        ExportError: a layer differs, or is in no graph.
    """
    equal = set()
    for path in graphs.values():
        for name, integers, scale in read_integers(ir.load(path)):
            want, steps = stored(spec, name)
            if not np.array_equal(integers, want):
                raise ExportError(f"{path.name}: {np.sum(integers != want)} integers of {name} differ")
            if not np.array_equal(scale, steps):
                raise ExportError(f"{path.name}: the scales of {name} differ")
            equal.add(name)
    missing = sorted(spec.layers.keys() - equal)
    if missing:
        raise ExportError(f"{len(missing)} quantized layers are in no graph, the first is {missing[0]}")
    return len(equal)
