"""NNCF's post-training int8 beside ours: `python benchmarks/nncf_baseline.py [BUNDLE] [--pairs 320]`.

Quantizes the fp32 graphs of a bundle with `nncf.quantize`, calibrated on drawn pairs of seed 1, compares them
with the float model on the gate's pairs of seed 0, and times every OpenVINO variant of the bundle and NNCF's
in turns in one run. BUNDLE has onnx-fp32 and any openvino-* variants; it is the bundled model by default.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["NNCF_CI"] = "1"  # no telemetry

import nncf
import numpy as np
import openvino
from numpy.typing import NDArray

from sam3i_edge.agreement import Pair, compare, model_pairs
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.devices import machine
from sam3i_edge.export.openvino.ir import write_ir
from sam3i_edge.export.staged import FileGraphs, TorchGraphs, answers
from sam3i_edge.model.weights import read_config
from sam3i_edge.pipeline import ask
from sam3i_edge.pipeline.preprocess import to_pixel_values
from sam3i_edge.runtimes import open_runtime
from sam3i_edge.runtimes.ov import shared_core

_PAIRS = 240  # of the gate
_WARM_UP = 5

Inputs = dict[str, NDArray[Any]]


def inputs_of(bundle: Bundle, pairs: list[Pair]) -> dict[str, list[Inputs]]:
    """What the fp32 graphs are given for these pairs: graph -> inputs of each run."""
    graphs = bundle.graphs("onnx-fp32")
    spec, tokenizer = bundle.manifest.preprocessing, bundle.tokenizer()
    opened = {name: open_runtime("onnxruntime", path, "cpu") for name, path in graphs.items()}
    made: dict[str, list[Inputs]] = {name: [] for name in graphs}

    def run(graph: str, inputs: ask.Arrays, wanted: Sequence[str]) -> ask.Arrays:
        made[graph].append(dict(inputs))
        return opened[graph].run(inputs)

    image: ask.Arrays = {}
    shown: NDArray[np.uint8] | None = None
    for pair in pairs:
        if pair.image is not shown:
            shown = pair.image
            image = ask.encode_image(run, to_pixel_values(shown, spec.image_size, spec.mean, spec.std))
        ask.detect(run, image, ask.encode_text(run, tokenizer.encode(pair.text).ids, pair.level))
    return made


def quantize(bundle: Bundle, folder: Path, calibration: Mapping[str, list[Inputs]]) -> dict[str, Path]:
    """Writes every graph as NNCF quantizes it: W8A8, its settings for transformers."""
    paths = {}
    for graph, source in bundle.graphs("onnx-fp32").items():
        plain, paths[graph] = folder / f"{graph}.fp32.xml", folder / f"{graph}.xml"
        write_ir(source, plain, "fp32")
        model = nncf.quantize(
            shared_core().read_model(plain),
            nncf.Dataset(calibration[graph]),
            subset_size=len(calibration[graph]),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
        )
        openvino.save_model(model, paths[graph], compress_to_fp16=False)
    return paths


def times(
    candidates: Mapping[str, tuple[str, Mapping[str, Path]]], runs: Mapping[str, list[Inputs]], rounds: int
) -> None:
    """Prints medians of all candidates, taken in turns: runtime and graphs by name."""
    graphs = ("image_encoder", "text_encoder.simple", "detector")
    opened = {
        name: {graph: open_runtime(runtime, paths[graph], "cpu") for graph in graphs}
        for name, (runtime, paths) in candidates.items()
    }
    spent: dict[tuple[str, str], list[float]] = {(name, graph): [] for name in opened for graph in graphs}
    for number in range(rounds + _WARM_UP):
        for graph in graphs:
            inputs = runs[graph][number % len(runs[graph])]
            for name in opened:
                start = time.perf_counter()
                opened[name][graph].run(inputs)
                spent[name, graph].append(1e3 * (time.perf_counter() - start))
    first = next(iter(opened))
    print(f"{'':24}" + "".join(f"{graph:>22}" for graph in graphs) + f"{'x ' + first:>22}")
    whole = dict.fromkeys(opened, 0.0)
    for name in opened:
        medians = [float(np.median(spent[name, graph][_WARM_UP:])) for graph in graphs]
        whole[name] = sum(medians)
        print(
            f"{name:24}"
            + "".join(f"{ms:19.2f} ms" for ms in medians)
            + f"{whole[first] / whole[name]:22.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="sam3i-nano")
    parser.add_argument("--pairs", type=int, default=320, help="of the calibration")
    parser.add_argument("--rounds", type=int, default=40, help="of the timing; 0 times nothing")
    given = parser.parse_args()
    bundle = Bundle.open(find_bundle(given.bundle))
    manifest, weights = bundle.manifest, bundle.weights()
    if weights is None:
        parser.error(f"{given.bundle} has no float weights to compare with")
    config = read_config(weights)
    calibration = inputs_of(bundle, model_pairs(given.pairs, config, seed=1))
    versions = f"openvino {openvino.__version__}, nncf {nncf.__version__}"
    print(f"{machine.inspect().processor}, {versions}, {date.today()}")
    print(f"load of the machine before: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    candidates: dict[str, tuple[str, Mapping[str, Path]]] = {
        "onnx-fp32": ("onnxruntime", bundle.graphs("onnx-fp32"))
    }
    for name, variant in manifest.variants.items():
        if variant.runtime == "openvino" or name == "onnx-int8":
            candidates[name] = (variant.runtime, bundle.graphs(name))
    with TemporaryDirectory() as folder:
        candidates["nncf-int8"] = ("openvino", quantize(bundle, Path(folder), calibration))
        size = sum(path.stat().st_size for path in Path(folder).iterdir() if ".fp32." not in path.name)
        pairs, score = model_pairs(_PAIRS, config), manifest.thresholds.score
        floats, asked = (
            answers(source, pairs, bundle.tokenizer(), manifest.preprocessing, score)
            for source in (TorchGraphs(weights, config), FileGraphs(candidates["nncf-int8"][1], "openvino"))
        )
        print(f"nncf-int8, {size / 1e6:.2f} MB: {compare(floats, asked)}", flush=True)
        if given.rounds:
            times(candidates, calibration, given.rounds)


if __name__ == "__main__":
    main()
