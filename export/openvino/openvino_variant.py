"""The variant that runs in OpenVINO."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sam3i_edge.export.gate import Gate
from sam3i_edge.export.openvino.integers import check_integers, integer_work
from sam3i_edge.export.openvino.ir import convert_graphs, export_openvino
from sam3i_edge.export.staged import FileGraphs
from sam3i_edge.export.targets import Written
from sam3i_edge.model.graph_specs import graph_names
from sam3i_edge.quantize.spec import QuantSpec


def write(place: Path, gate: Gate, precision: str, quantized: Path | None) -> Written:
    """Converts the graphs and reads integers back; see `sam3i_edge.export.targets.Target`.

    The gate's agreement is that of the CPU, which computes fp16 graphs in float32: there it tells what
    rounding the weights costs.

    Raises:
        ExportError: OpenVINO renamed an input or output, or the integers are not those of the spec.
    """
    # The bundle's own ONNX variant holds the same graphs; float weights become float16 on the way.
    made = place.parent / f"onnx-{'fp32' if quantized is None else quantized.stem}"
    sources = {graph: made / f"{graph}.onnx" for graph in graph_names(gate.config, gate.boxes)}
    if all(path.is_file() for path in sources.values()):
        files = convert_graphs(sources, place, precision=precision, isolate=gate.isolate, progress=gate.tell)
    else:
        files = export_openvino(
            gate.weights if quantized is None else quantized, gate.config, place, gate.boxes,
            precision=precision, isolate=gate.isolate, progress=gate.tell,
        )  # fmt: skip
    figures: dict[str, float] = {}
    if quantized is not None:
        paths = {graph: place / file for graph, file in files.items()}
        figures["equal_layers"] = check_integers(QuantSpec.load(quantized), paths)
        counts = []
        for number, path in enumerate(paths.values()):
            gate.tell("counting integer kernels", number / len(paths))
            counts.append(integer_work(path))
        share = sum(integer for integer, _ in counts) / max(sum(total for _, total in counts), 1)
        figures["integer_share"] = share
        gate.tell(f"{share:.1%} of the multiply-adds in integer kernels", 1.0)
    return Written(files=files, source=partial(FileGraphs, runtime="openvino"), figures=figures)
