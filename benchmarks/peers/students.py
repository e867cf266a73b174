"""Students of EfficientSAM3: our int8 graphs beside the same network in eager PyTorch, float32.

    python benchmarks/peers/students.py FOLDER --image efficientvit-b1 --text mobileclip-s0 --side 336
    python benchmarks/peers/students.py FOLDER --texts

Weights are random, and integers have ranges that nothing was calibrated for, so times and memory mean
something and answers do not. One thread, in turn, processor time: it holds on a busy machine, though a shared
cache makes all of it longer. FOLDER keeps the graphs, for `python benchmarks/memory.py FOLDER/STUDENT/SIDE`.
`--texts` times the text encoders of SAM3 and of the students alone, in eager float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sam3i_edge.export.isolated import call
from sam3i_edge.export.onnx.graph_file import export_graph
from sam3i_edge.export.openvino.ir import write_ir
from sam3i_edge.model.config import SAM3I_OFFICIAL, ModelConfig
from sam3i_edge.model.graph_specs import graph_names, graph_specs
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.student_variants import IMAGE_STUDENTS, TEXT_STUDENTS
from sam3i_edge.model.text_encoder import TextEncoder
from sam3i_edge.quantize.modules import conv_options
from sam3i_edge.quantize.ptq import exact_bias, quantize_table, weight_from_rows, weight_rows
from sam3i_edge.quantize.ranges import exact_scale, raise_for_bias, round_to
from sam3i_edge.quantize.recipes import RECIPES
from sam3i_edge.quantize.spec import Layer, QuantSpec
from sam3i_edge.runtimes import open_runtime

_STEP = 0.03125  # of every activation


def config_of(image: str, text: str, side: int) -> ModelConfig:
    """The sizes of a student without adapters."""
    sizes = {**IMAGE_STUDENTS[image], **TEXT_STUDENTS[text], "image_size": side, "adapter_dim": 0}
    return ModelConfig.from_dict(SAM3I_OFFICIAL.to_dict() | sizes)


@torch.no_grad()
def make_int8(config: ModelConfig, path: Path) -> None:
    """Writes a `QuantSpec` of random weights."""
    torch.manual_seed(0)
    model, recipe = SAM3I(config).eval(), RECIPES["int8"]
    layers, tensors = {}, dict(model.state_dict())
    for name, module in recipe.modules(model).items():
        if isinstance(module, nn.Embedding):
            layers[name], own = quantize_table(module)
        else:
            layers[name], own = _int8(module, recipe.kind(name, module))
        tensors |= {f"{name}.{part}": value for part, value in own.items()}
    QuantSpec("int8", layers, tensors).save(path)


def _int8(module: nn.Module, kind: Any) -> tuple[Layer, dict[str, torch.Tensor]]:
    assert isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
    rows = weight_rows(kind, module.weight)
    scale = exact_scale(rows.abs().amax(1).clamp(min=1e-6) / 127)
    if module.bias is not None:
        scale = raise_for_bias(scale, module.bias, _STEP)
    own = {
        "weight": weight_from_rows(kind, round_to(rows, scale[:, None], -127, 127), module.weight.shape),
        "weight_scale": scale,
    }
    if module.bias is not None:
        own["bias"] = exact_bias(module.bias, scale, _STEP)
    plain = isinstance(module, nn.Linear)
    layer = Layer(
        kind=kind,
        bits=8,
        input_scale=_STEP,
        output_scale=None if plain else _STEP,
        options={} if plain else conv_options(module),
    )
    return layer, own


def write_graphs(config: ModelConfig, folder: Path, graphs: Sequence[str]) -> None:
    """Writes what is not there yet: the quantized model, its ONNX graphs, and these as IR."""
    spec, offsets = folder / "int8.safetensors", {}
    if not spec.exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_int8(config, spec)
    for graph in graphs:
        onnx, ir = (folder / f"{graph}.{suffix}" for suffix in ("onnx", "xml"))
        if not onnx.exists():
            offsets, _ = call(export_graph, spec, config, folder, 0, graph, offsets, False)
        if not ir.exists():
            call(write_ir, onnx, ir, "int8")


def timed(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of processor time by way: the median of `rounds` calls in turn, after a first one."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            began = time.process_time()
            run()
            spent[name].append(1e3 * (time.process_time() - began))
    return {name: float(np.median(values[1:])) for name, values in spent.items()}


def compare(config: ModelConfig, folder: Path, graphs: Sequence[str], rounds: int) -> None:
    """Prints a line for each graph."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    for spec in graph_specs(SAM3I(config).eval()):
        if spec.name not in graphs:
            continue
        inputs = {
            name: rng.uniform(-1, 1, value.shape).astype(np.float32)
            if value.is_floating_point()
            else value.numpy()
            for name, value in spec.inputs.items()
        }
        opened = {
            name: open_runtime(name, folder / f"{spec.name}.{suffix}", "cpu", threads=1)
            for name, suffix in (("onnxruntime", "onnx"), ("openvino", "xml"))
        }
        ways = {"eager float32": lambda spec=spec, inputs=inputs: spec.run(inputs)}
        ways |= {
            f"{name} int8": lambda run=runtime.run, inputs=inputs: run(inputs)
            for name, runtime in opened.items()
        }
        print(spec.name, {name: round(ms, 1) for name, ms in timed(ways, rounds).items()}, flush=True)
        for runtime in opened.values():
            runtime.close()


def compare_texts(rounds: int) -> None:
    """Prints a line of the text encoders, at their context; SAM3's without adapters."""
    ways = {}
    for name, sizes in {"sam3": {}, **TEXT_STUDENTS}.items():
        for context in (16, 32) if sizes else (32,):
            own = {
                **sizes,
                "text_context": context,
                "adapter_dim": 0,
                "vocab_size": 512,
            }  # gathered, not multiplied
            encoder = TextEncoder(ModelConfig.from_dict(SAM3I_OFFICIAL.to_dict() | own)).eval()
            ids = torch.arange(context)[None] + 1
            ways[f"{name}, {context} tokens"] = lambda encoder=encoder, ids=ids: encoder(ids, "concept")
    with torch.inference_mode():
        print("text encoder, eager float32", {n: round(ms, 1) for n, ms in timed(ways, rounds).items()})


def main() -> None:
    """Makes what is missing, and times it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--image", choices=IMAGE_STUDENTS, default="efficientvit-b1")
    parser.add_argument("--text", choices=TEXT_STUDENTS, default="mobileclip-s0")
    parser.add_argument("--side", type=int, default=336)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--graphs", nargs="*", help="these alone; students of a side share the detector's sizes"
    )
    parser.add_argument("--texts", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.texts:
        compare_texts(given.rounds)
        return
    config = config_of(given.image, given.text, given.side)
    folder = given.folder / f"{given.image}-{given.text}" / str(given.side)
    graphs = given.graphs or graph_names(config)
    write_graphs(config, folder, graphs)
    compare(config, folder, graphs, given.rounds)


if __name__ == "__main__":
    main()
