"""The graphs of a model as OpenVINO IR: a .xml with its .bin beside it, through the ONNX export.

Quantized layers keep their integers: 8-bit weights are i8 constants, 4-bit ones u4 with zero point 8, static
activations FakeQuantize. What was saved is read back and compared with the `QuantSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import openvino
from openvino._offline_transformations import apply_moc_transformations

from sam3i_edge import __version__
from sam3i_edge.errors import ExportError
from sam3i_edge.export.isolated import call, done
from sam3i_edge.export.onnx.graph_file import export_onnx
from sam3i_edge.export.openvino.rewrites import join_queries, round_before_sums, run_constant_layers
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.runtimes import Progress, part, untold
from sam3i_edge.runtimes.ov import PRECISION_KEY, shared_core


def export_openvino(
    source: Path,
    config: ModelConfig,
    folder: Path,
    boxes: int = 0,
    *,
    precision: str,
    isolate: bool = False,
    progress: Progress = untold,
) -> dict[str, str]:
    """Writes every graph of a model, with one graph in memory at a time.

    Args:
        source: as in `open_model`.
        config: its sizes.
        folder: an existing folder.
        boxes: as in `graph_specs`.
        precision: "fp16" rounds float weights to float16; all others keep them float32. A graph whose name
            of precision ends in "-bf16" is computed in bfloat16 where it is not in integers.
        isolate: convert each graph in a process of its own, which gives its memory back.
        progress: called before each graph is exported and converted, and when it is done.

    Returns:
        Graph name -> name of its .xml inside `folder`.

    Raises:
        ExportError: OpenVINO renamed an input or output, or the process of a graph died.
    """
    with TemporaryDirectory(dir=folder, prefix=".onnx-") as temporary:
        made = export_onnx(
            source, config, Path(temporary), boxes, isolate=isolate, progress=part(progress, 0, 2)
        )
        sources = {graph: Path(temporary) / file for graph, file in made.items()}
        return convert_graphs(
            sources, folder, precision=precision, isolate=isolate, progress=part(progress, 1, 2)
        )


def convert_graphs(
    sources: Mapping[str, Path],
    folder: Path,
    *,
    precision: str,
    isolate: bool = False,
    progress: Progress = untold,
) -> dict[str, str]:
    """Converts ONNX graphs, float32 or quantized, by name; all else as in `export_openvino`."""
    files = {}
    for number, (graph, onnx) in enumerate(sources.items()):
        path, words = folder / f"{graph}.xml", f"converting {graph} for OpenVINO"
        progress(words, number / len(sources))
        _, peak = call(write_ir, onnx, path, precision, isolate=isolate)
        files[graph] = path.name
        progress(done(words, peak, isolate), (number + 1) / len(sources))
    return files


def write_ir(onnx: Path, path: Path, precision: str) -> None:
    """Converts one ONNX file; arguments as in `export_openvino`.

    Raises:
        ExportError: OpenVINO renamed an input or output.
    """
    model = shared_core().read_model(onnx)
    names = [port.get_any_name() for port in (*model.inputs, *model.outputs)]
    join_queries(model)
    # What `openvino.convert_model` does too, which reports each use to its maker.
    apply_moc_transformations(model, cf=True, smart_reshape=False)
    for name, port in zip(names, (*model.inputs, *model.outputs), strict=True):
        if name not in port.get_names():
            raise ExportError(f"{onnx.name}: {name} is called {', '.join(port.get_names())} in OpenVINO")
        port.set_names({name})  # where a reshape behind an input went away, its name is there too
    if precision not in ("fp32", "fp16"):
        run_constant_layers(model)
        round_before_sums(model)
    model.set_friendly_name(path.stem)
    model.set_rt_info(precision, PRECISION_KEY)
    model.set_rt_info(__version__, [PRECISION_KEY[0], "version"])
    openvino.save_model(model, path, compress_to_fp16=precision == "fp16")
