"""Quantizes a model of official size with random weights, and measures it beside float32.

    python scripts/full_size_quantized.py FOLDER --resolution 336 [--recipe int8] [--queries 5] [--spec SPEC]

FOLDER gets the float weights (4.6 GB), the quantized model, its ONNX graphs, the float image encoder and
`full-size-int8-336.json`. Each step runs in a process of its own, whose peak memory is recorded. Nothing here
is trained: sizes, memory and latency mean something, masks do not, so outputs are compared by relative error.
No weight depends on the resolution, so a SPEC that was made at another one can be exported instead.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
PAIRS = 8  # the fewest images that calibration takes


def make_weights(folder: Path, resolution: int) -> None:
    """Writes random weights as torch initialises them."""
    import torch

    from sam3i_edge.model.config import PRESETS
    from sam3i_edge.model.sam3i import SAM3I
    from sam3i_edge.model.weights import save_weights

    torch.manual_seed(0)
    save_weights(SAM3I(replace(PRESETS["sam3i"], image_size=resolution)), folder)


def quantize(weights: Path, out: Path, recipe: str) -> dict[str, float]:
    """Post-training quantization by a recipe, calibrated on 8 drawn pictures; gives seconds."""
    import torch

    from sam3i_edge.agreement import drawn_pairs
    from sam3i_edge.bundle.manifest import Preprocessing
    from sam3i_edge.levels import LEVELS
    from sam3i_edge.model.weights import load_model
    from sam3i_edge.quantize.ptq import Prepared
    from sam3i_edge.quantize.recipes import RECIPES

    model = load_model(weights)
    drawn = drawn_pairs(5 * PAIRS, seed=1)[::5]
    pairs = [replace(pair, level=level) for pair, level in zip(drawn, cycle(LEVELS), strict=False)]
    generator = np.random.default_rng(0)

    def encode(text: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        del text
        return generator.integers(1, model.config.vocab_size, 32)

    began = time.perf_counter()
    preprocessing = Preprocessing(image_size=model.config.image_size)
    with torch.no_grad():
        prepared = Prepared(model, RECIPES[recipe], pairs, encode, preprocessing)
        calibrated = time.perf_counter()
        if left := [name for name in prepared.unreached if not name.startswith("geometry_encoder")]:
            raise SystemExit(f"{len(left)} layers were not calibrated, {left[0]} is the first")
        prepared.quantize().save(out)
    return {"calibrate_s": calibrated - began, "quantize_s": time.perf_counter() - calibrated}


def export(source: Path, weights: Path, folder: Path, graph: str) -> dict[str, Any]:
    """One graph to ONNX; of a quantized one, its integers are read back and its kernels counted."""
    from sam3i_edge.export.onnx.census import census
    from sam3i_edge.export.onnx.graph_file import export_graph
    from sam3i_edge.export.onnx.onnx_variant import check_integers
    from sam3i_edge.model.weights import read_config
    from sam3i_edge.quantize.spec import QuantSpec

    folder.mkdir(exist_ok=True)
    export_graph(source, read_config(weights), folder, 0, graph, {}, False)
    path = folder / f"{graph}.onnx"
    if source.is_dir():
        return {}
    spec = QuantSpec.load(source, graph)
    # What other levels' graphs read alone.
    others = [f".adapter.{kind}." for kind in ("bridge", "complex") if graph == "text_encoder.simple"]
    used = {n: layer for n, layer in spec.layers.items() if not any(part in n for part in ("boxes", *others))}
    equal = check_integers(QuantSpec(spec.recipe, used, spec.tensors), {graph: path})
    counted = census(path)
    return {"equal_layers": equal, "integer_share": counted.share, "kernels": counted.kernels}


def compare(folder: Path, recipe: str, resolution: int, queries: int) -> dict[str, Any]:
    """Latency of both image encoders, in turn, and the relative error of their outputs."""
    import onnxruntime

    from sam3i_edge.runtimes import open_runtime

    paths = {name: folder / name / "image_encoder.onnx" for name in ("fp32", recipe)}
    opened = {name: open_runtime("onnxruntime", path, "cpu", threads=2) for name, path in paths.items()}
    rng = np.random.default_rng(0)
    samples: dict[str, list[float]] = {name: [] for name in opened}
    outputs = {}
    for number in range(queries + 1):
        values = rng.uniform(-1, 1, (1, 3, resolution, resolution)).astype(np.float32)
        for name, runtime in opened.items():
            began = time.perf_counter()
            outputs[name] = runtime.run({"pixel_values": values})
            if number:
                samples[name].append(1e3 * (time.perf_counter() - began))
    error = {
        name: float(np.linalg.norm(value - outputs["fp32"][name]) / np.linalg.norm(outputs["fp32"][name]))
        for name, value in outputs[recipe].items()
    }
    median = {name: float(np.median(values)) for name, values in samples.items()}
    return {
        "median_ms": median,
        "p90_ms": {name: float(np.quantile(values, 0.9)) for name, values in samples.items()},
        "times_faster": median["fp32"] / median[recipe],
        "relative_error": error,
        "onnxruntime": onnxruntime.__version__,
    }


def measured(function: Callable[..., Any], arguments: tuple[object, ...]) -> tuple[Any, int]:
    """Calls it, and adds the peak memory of the process."""
    from sam3i_edge.devices.machine import peak_memory

    return function(*arguments), peak_memory()


def main() -> None:
    """Measures one resolution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resolution", type=int, default=336)
    parser.add_argument("--recipe", choices=("int8", "int8w", "int4"), default="int8")
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--spec", type=Path, help="quantized model to export in place of a new one")
    given = parser.parse_args()
    folder: Path = given.folder / str(given.resolution)
    folder.mkdir(parents=True, exist_ok=True)
    weights, spec = folder / "weights", given.spec or folder / f"{given.recipe}.safetensors"
    figures: dict[str, Any] = {"resolution": given.resolution, "peak_mib": {}}

    def step(name: str, function: Callable[..., Any], *arguments: object) -> None:
        began = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result, peak = pool.apply(measured, (function, arguments))
        figures[name] = {**(result or {}), "seconds": time.perf_counter() - began}
        figures["peak_mib"][name] = peak // 2**20
        print(name, json.dumps(figures[name]), f"peak {peak // 2**20:,} MiB", flush=True)

    if not weights.exists():
        step("weights", make_weights, weights, given.resolution)
    if not given.spec:
        step("quantize", quantize, weights, spec, given.recipe)
    shutil.rmtree(folder / given.recipe, ignore_errors=True)  # graphs append their weights to one file
    for graph in ("image_encoder", "text_encoder.simple", "detector"):
        step(f"{given.recipe} {graph}", export, spec, weights, folder / given.recipe, graph)
    if not (folder / "fp32" / "image_encoder.onnx").exists():
        step("fp32 image_encoder", export, weights, weights, folder / "fp32", "image_encoder")
    step("compare", compare, folder, given.recipe, given.resolution, given.queries)
    figures["bytes"] = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for part in ("fp32", given.recipe)
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }
    report = given.folder / f"full-size-{given.recipe}-{given.resolution}.json"
    report.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
