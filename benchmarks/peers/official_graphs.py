"""Makes the graphs that `test_official_size.py` times, once: `python official_graphs.py FOLDER --side 336`.

FOLDER/weights holds the float weights of a model of the official size, FOLDER/int8.safetensors and .json its
`QuantSpec`; they may be of another side, since neither depends on it (scripts/full_size_quantized.py makes
both with random weights). Without a `QuantSpec` one of random weights is made, whose ranges nothing was
calibrated for: enough for time and memory, in a minute. FOLDER/SIDE gets, where it is not there yet:

    onnx-fp32, onnx-int8         our graphs for ONNX Runtime
    openvino-int8, -int8-bf16    ours for OpenVINO; the second computes in bfloat16 what is not in integers
    dynamic-QInt8, -QUInt8       our float graphs after ONNX Runtime's `quantize_dynamic`
    peer-fp32                    transformers' graphs, by `openvino.convert_model`
    peer-int8w                   these after `nncf.compress_weights`: int8 weights, as they are mostly shipped
    peer-w8a8                    these after `nncf.quantize`, calibrated on one random picture

About 12 GB for a side, and up to 9 GB of memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from official_session import PARTS, inputs
from random_int8 import make_int8

from sam3i_edge.export.isolated import call

OURS = ("image_encoder", "text_encoder.simple", "detector")


def float_and_int8(source: Path, weights: Path, side: int, folder: Path) -> None:
    """Our graphs; `source` is the weights' folder or a `QuantSpec`."""
    from sam3i_edge.export.onnx.graph_file import Offsets, export_graph
    from sam3i_edge.model.config import SAM3I_OFFICIAL
    from sam3i_edge.model.weights import read_config

    sizes = read_config(weights) if weights.exists() else SAM3I_OFFICIAL
    config = replace(sizes, image_size=side)
    if source.suffix and not source.exists():
        call(make_int8, config, source)
    offsets: Offsets = {}
    for graph in OURS:
        offsets, _ = call(export_graph, source, config, folder, 0, graph, offsets, False)


def openvino_of(onnx: Path, precision: str, folder: Path) -> None:
    """Our integer graphs as IR."""
    from sam3i_edge.export.openvino.ir import write_ir

    for graph in OURS:
        call(write_ir, onnx / f"{graph}.onnx", folder / f"{graph}.xml", precision)


def dynamic(onnx: Path, kind: str, folder: Path) -> None:
    """`quantize_dynamic` of our float graphs, a scale per output channel."""
    for graph in OURS:
        call(_dynamic, onnx / f"{graph}.onnx", kind, folder / f"{graph}.onnx")


def _dynamic(source: Path, kind: str, path: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    # Its shape inference contradicts shapes that are written down inside the graph.
    del model.graph.value_info[:]
    quantize_dynamic(
        model,
        path,
        weight_type=QuantType[kind],
        per_channel=True,
        use_external_data_format=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def peer(side: int, folder: Path) -> None:
    """transformers' graphs in float32."""
    for part in PARTS:
        call(_peer, side, part, folder / f"{part}.xml")


def _peer(side: int, part: str, path: Path) -> None:
    import openvino
    import torch
    from official_torch import example_parts

    module, example = example_parts(side)[part]
    shapes = [tuple(one.shape) for one in example]
    if part == "image":
        # Tracing keeps every intermediate result, at 1008 px more than 30 GB.
        with torch.no_grad():
            program = torch.export.export(module.eval(), example, strict=False)
        model = openvino.convert_model(program)
        model.reshape(dict(zip(model.inputs, shapes, strict=True)))
    else:
        with torch.inference_mode():
            model = openvino.convert_model(module, example_input=example, input=shapes)
    openvino.save_model(model, path, compress_to_fp16=False)


def nncf_of(plain: Path, activations: bool, side: int, folder: Path) -> None:
    """transformers' graphs as NNCF quantizes them: weights alone, or weights and activations."""
    for part in PARTS:
        call(_nncf, plain, part, activations, side, folder / f"{part}.xml")


def _nncf(plain: Path, part: str, activations: bool, side: int, path: Path) -> None:
    import nncf
    import numpy as np
    import openvino

    core = openvino.Core()
    model = core.read_model(plain / f"{part}.xml")
    if not activations:
        openvino.save_model(nncf.compress_weights(model), path, compress_to_fp16=False)
        return
    pixels, ids = inputs(side)
    rng = np.random.default_rng(1)
    given = {"image": [pixels], "text": [ids]}.get(part) or [
        rng.normal(size=tuple(port.shape)).astype(np.float32) for port in model.inputs
    ]
    quantized = nncf.quantize(
        model,
        nncf.Dataset([dict(enumerate(given))]),
        subset_size=1,
        model_type=nncf.ModelType.TRANSFORMER,
        # It changes biases, not what is computed.
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)


def make(folder: Path, side: int, only: list[str]) -> None:
    """Makes what is missing, or of that what is named."""
    weights, spec, place = folder / "weights", folder / "int8.safetensors", folder / str(side)
    steps: dict[str, Callable[[Path], Any]] = {
        "onnx-fp32": lambda to: float_and_int8(weights, weights, side, to),
        "onnx-int8": lambda to: float_and_int8(spec, weights, side, to),
        "openvino-int8": lambda to: openvino_of(place / "onnx-int8", "int8", to),
        "openvino-int8-bf16": lambda to: openvino_of(place / "onnx-int8", "int8-bf16", to),
        "dynamic-QInt8": lambda to: dynamic(place / "onnx-fp32", "QInt8", to),
        "dynamic-QUInt8": lambda to: dynamic(place / "onnx-fp32", "QUInt8", to),
        "peer-fp32": lambda to: peer(side, to),
        "peer-int8w": lambda to: nncf_of(place / "peer-fp32", False, side, to),
        "peer-w8a8": lambda to: nncf_of(place / "peer-fp32", True, side, to),
    }
    for name, step in steps.items():
        done = place / name
        if done.exists() or (only and name not in only):
            continue
        began, part = time.perf_counter(), place / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        step(part)
        part.rename(done)
        size = sum(path.stat().st_size for path in done.iterdir())
        print(f"{side} {name}: {size / 1e6:,.0f} MB, {time.perf_counter() - began:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=336)
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    os.environ["NNCF_CI"] = "1"  # no telemetry
    make(given.folder, given.side, given.only)


if __name__ == "__main__":
    import official_graphs  # functions of `__main__` cannot be called in another process

    official_graphs.main()
