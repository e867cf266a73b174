"""The variant that runs in torch: a description of each graph, no weights of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sam3i_edge.export.gate import Gate
from sam3i_edge.export.staged import FileGraphs
from sam3i_edge.export.targets import Written
from sam3i_edge.model.graph_specs import graph_names
from sam3i_edge.runtimes.eager import write_graph_file


def write(place: Path, gate: Gate, precision: str, quantized: Path | None) -> Written:
    """Writes the descriptions; see `sam3i_edge.export.targets.Target`."""
    source = (gate.weights if quantized is None else quantized).relative_to(place.parent).as_posix()
    files = {graph: f"{graph}.json" for graph in graph_names(gate.config, gate.boxes)}
    for graph, file in files.items():
        write_graph_file(place / file, graph, source, gate.config, gate.boxes, half=precision == "fp16")
    return Written(files=files, source=partial(FileGraphs, runtime="eager"), figures={})
