"""Exports a model of official size with random weights to OpenVINO and Core ML, and measures both.

    python scripts/full_size_targets.py FOLDER [--precisions fp16,int8] [--targets openvino,coreml]

FOLDER holds `weights` and, for quantized precisions, `int8.safetensors` and so on: what
`full_size_quantized.py` leaves in its folder of one resolution, whose ONNX graphs are used too. It gets
`openvino-fp16` and so on, and `full-size-targets.json`, which a later call adds to. Each step runs in a
process of its own, whose peak memory is recorded. Random weights find nothing, so outputs are compared by
relative error, graph by graph: with the same precision in torch (what the target changes) and with float32 in
torch (what rounding changes too). Of the detector the 16 best queries count, each beside the answer whose box
is nearest.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from full_size_quantized import measured

FLOAT = ("fp32", "fp16")
BEST = 16
Arrays = Mapping[str, np.ndarray[Any, Any]]


def make_inputs(folder: Path, place: Path) -> None:
    """Inputs of each graph: a drawn picture and an instruction of random tokens through the float model."""
    from sam3i_edge.data.scenes import draw_scene
    from sam3i_edge.export.staged import TorchGraphs
    from sam3i_edge.levels import LEVELS
    from sam3i_edge.model.weights import read_config
    from sam3i_edge.pipeline import ask
    from sam3i_edge.pipeline.preprocess import to_pixel_values

    config = read_config(folder / "weights")
    rng = np.random.default_rng(0)
    ids = np.zeros(config.text_context, np.int64)
    ids[:12] = rng.integers(1, config.vocab_size, 12)
    pixels = to_pixel_values(draw_scene(rng).pixels(), config.image_size, (0.5,) * 3, (0.5,) * 3)
    source = TorchGraphs(folder / "weights", config)

    def run(graph: str, inputs: Arrays, wanted: Sequence[str]) -> Arrays:
        with source.open(graph) as opened:
            found = opened(inputs)
        np.savez(place / f"{graph}.inputs.npz", **inputs)
        np.savez(place / f"{graph}.fp32.npz", **found)
        return found

    image = ask.encode_image(run, pixels)
    texts = {level: ask.encode_text(run, ids, level) for level in LEVELS}
    ask.detect(run, image, texts["simple"])


def make_reference(folder: Path, place: Path, precision: str, graph: str) -> None:
    """What a quantized model gives in torch for the same inputs."""
    from sam3i_edge.export.staged import TorchGraphs
    from sam3i_edge.model.weights import read_config

    source = TorchGraphs(folder / f"{precision}.safetensors", read_config(folder / "weights"))
    with source.open(graph) as run, np.load(place / f"{graph}.inputs.npz") as inputs:
        np.savez(place / f"{graph}.{precision}.npz", **run(dict(inputs)))


def write_onnx(folder: Path, source: Path, graph: str, out: Path) -> None:
    """The float32 or quantized ONNX graph that OpenVINO reads."""
    from sam3i_edge.export.onnx.graph_file import export_graph
    from sam3i_edge.model.weights import read_config

    export_graph(source, read_config(folder / "weights"), out, 0, graph, {}, False)


def write_openvino(onnx: Path, path: Path, precision: str) -> None:
    """The IR of one graph."""
    from sam3i_edge.export.openvino.ir import write_ir

    write_ir(onnx, path, precision)


def write_coreml(folder: Path, source: Path, graph: str, out: Path, precision: Any) -> dict[str, Any]:
    """The package of one graph, and its operations."""
    from sam3i_edge.export.coreml.mil_reference import MilProgram
    from sam3i_edge.export.coreml.package import PackageOptions, write_package
    from sam3i_edge.model.graph_specs import graph_specs
    from sam3i_edge.model.weights import read_config
    from sam3i_edge.quantize.spec import open_model

    model = open_model(source, read_config(folder / "weights"), graph)
    spec = next(spec for spec in graph_specs(model) if spec.name == graph)
    path = write_package(spec, out, PackageOptions(precision=precision))
    program = MilProgram(path)
    return {"census": dict(program.census().most_common()), "rank": max(len(s) for _, s in program.shapes())}


def run_and_compare(target: str, path: Path, place: Path, precision: str, graph: str) -> dict[str, Any]:
    """Runs one written graph, and gives its relative errors."""
    from sam3i_edge.export.coreml.mil_reference import MilGraphs
    from sam3i_edge.export.staged import FileGraphs

    paths = {graph: path}
    with np.load(place / f"{graph}.inputs.npz") as file:
        inputs = dict(file)
    with (MilGraphs(paths) if target == "coreml" else FileGraphs(paths, "openvino")).open(graph) as run:
        found = run(inputs)
    errors = {}
    for name, label in (("same", "fp32" if precision in FLOAT else precision), ("float", "fp32")):
        with np.load(place / f"{graph}.{label}.npz") as file:
            errors[name] = relative_errors(dict(file), found)
    return {"relative_error": errors, "finite": all(bool(np.isfinite(v).all()) for v in found.values())}


def relative_errors(want: Arrays, found: Arrays) -> dict[str, float]:
    """Norm of the difference by norm of the wanted, for each output."""
    from sam3i_edge.evaluate.assignment import linear_assignment

    if "mask_logits" in want:
        rows = slice(None, BEST)
        far = np.abs(want["boxes"][0, rows, None] - found["boxes"][0][None]).sum(-1)
        order = linear_assignment(far)[1]
        want = {n: v if n == "presence" else v[:, rows] for n, v in want.items()}
        found = {n: v if n == "presence" else v[:, order] for n, v in found.items()}
    return {
        name: float(np.linalg.norm(found[name] - value) / np.linalg.norm(value))
        for name, value in want.items()
    }


def check(folder: Path, target: str, precision: str, paths: Mapping[str, Path]) -> dict[str, int]:
    """Reads integers and scales back from all graphs and compares them with the quantized model's."""
    from sam3i_edge.export.coreml import coreml_variant
    from sam3i_edge.export.openvino import integers as openvino_integers
    from sam3i_edge.quantize.spec import QuantSpec

    spec = QuantSpec.load(folder / f"{precision}.safetensors")
    used = {name: layer for name, layer in spec.layers.items() if "boxes" not in name}  # in box_encoder only
    spec = QuantSpec(spec.recipe, used, spec.tensors)
    compare = coreml_variant.check_integers if target == "coreml" else openvino_integers.check_integers
    return {"equal_layers": compare(spec, paths)}


def size_of(path: Path) -> int:
    """Bytes of a package, or of an IR and its weights."""
    parts = path.rglob("*") if path.is_dir() else (path, path.with_suffix(".bin"))
    return sum(part.stat().st_size for part in parts if part.is_file())


def main() -> None:
    """Measures what is asked for and adds it to the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--targets", default="openvino,coreml")
    parser.add_argument("--precisions", default="fp16,int8")
    parser.add_argument("--graphs", help="some of them; integers are then not compared")
    given = parser.parse_args()
    from sam3i_edge.export.coreml.package import file_name
    from sam3i_edge.model.graph_specs import graph_names
    from sam3i_edge.model.weights import read_config

    folder: Path = given.folder
    report = folder / "full-size-targets.json"
    figures: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}

    def step(where: dict[str, Any], name: str, function: Callable[..., Any], *arguments: object) -> None:
        began = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result, peak = pool.apply(measured, (function, arguments))
        where[name] = {**(result or {}), "seconds": time.perf_counter() - began, "peak_mib": peak // 2**20}
        print(name, json.dumps(where[name]), flush=True)
        report.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    place = folder / "references"
    place.mkdir(exist_ok=True)
    graphs = graph_names(read_config(folder / "weights"))
    if not (place / f"{graphs[-1]}.fp32.npz").exists():
        step(figures, "inputs", make_inputs, folder, place)
    if given.graphs:
        graphs = [graph for graph in graphs if graph in given.graphs.split(",")]
    for precision in given.precisions.split(","):
        source = folder / ("weights" if precision in FLOAT else f"{precision}.safetensors")
        for graph in graphs:
            if precision not in FLOAT and not (place / f"{graph}.{precision}.npz").exists():
                step(figures, f"torch {precision} {graph}", make_reference, folder, place, precision, graph)
        for target in given.targets.split(","):
            label = f"{target}-{precision}"
            out = folder / label
            out.mkdir(exist_ok=True)
            row: dict[str, Any] = figures.setdefault(label, {})
            paths = {}
            for graph in graphs:
                print(label, graph, flush=True)
                part = row.setdefault(graph, {})
                if target == "coreml":
                    paths[graph] = out / file_name(graph)
                    step(part, "write", write_coreml, folder, source, graph, out, precision)
                else:
                    paths[graph] = out / f"{graph}.xml"
                    made = folder / ("fp32" if precision in FLOAT else precision) / f"{graph}.onnx"
                    with TemporaryDirectory(dir=folder) as scratch:
                        if not made.exists():
                            made = Path(scratch) / made.name
                            step(part, "onnx", write_onnx, folder, source, graph, Path(scratch))
                        step(part, "write", write_openvino, made, paths[graph], precision)
                part["bytes"] = size_of(paths[graph])
                step(part, "run", run_and_compare, target, paths[graph], place, precision, graph)
            if precision not in FLOAT and not given.graphs:
                step(row, "integers", check, folder, target, precision, paths)


if __name__ == "__main__":
    main()
