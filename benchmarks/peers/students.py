"""Students of EfficientSAM3: our int8 graphs beside the same network in eager PyTorch, float32.

    python benchmarks/peers/students.py FOLDER --side 672 --compile
    python benchmarks/peers/students.py FOLDER --texts

Prints a table: times of each image encoder, then of what all students of a side share, then the most memory
that a process holds with all int8 graphs open and run. Weights are random, and integers have ranges that
nothing was calibrated for, so times and memory mean something and answers do not. One thread, in turn,
processor time: it holds on a busy machine, though a shared cache makes all of it longer. FOLDER keeps the
graphs. `--compile` adds `torch.compile` as a peer, whose compiling is not timed. `--texts` times the text
encoders of SAM3 and of the students alone, in eager float32.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_int8 import make_int8

from sam3i_edge.export.isolated import call
from sam3i_edge.export.onnx.graph_file import export_graph
from sam3i_edge.export.openvino.ir import write_ir
from sam3i_edge.model.config import SAM3I_OFFICIAL, ModelConfig
from sam3i_edge.model.graph_specs import GraphSpec, graph_names, graph_specs
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.student_variants import IMAGE_STUDENTS, TEXT_STUDENTS
from sam3i_edge.model.text_encoder import TextEncoder
from sam3i_edge.runtimes import open_runtime

_BOXES = 8  # of a prompt, as `convert` has it when told nothing
_MEMORY = Path(__file__).parents[1] / "memory.py"
RUNTIMES = {"onnxruntime": "onnx", "openvino": "xml"}
STUDENTS = ("efficientvit-b1", "repvit-m1.1", "tinyvit-11m")


def config_of(image: str, text: str, side: int) -> ModelConfig:
    """The sizes of a student without adapters."""
    sizes = {**IMAGE_STUDENTS[image], **TEXT_STUDENTS[text], "image_size": side, "adapter_dim": 0}
    return ModelConfig.from_dict(SAM3I_OFFICIAL.to_dict() | sizes)


def write_graphs(config: ModelConfig, folder: Path, graphs: Collection[str]) -> None:
    """Writes what is not there yet: the quantized model, its ONNX graphs, and these as IR."""
    spec, offsets = folder / "int8.safetensors", {}
    if not spec.exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_int8(config, spec)
    for graph in graphs:
        onnx, ir = (folder / f"{graph}.{suffix}" for suffix in RUNTIMES.values())
        if not onnx.exists():
            offsets, _ = call(export_graph, spec, config, folder, _BOXES, graph, offsets, False)
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


def compare(
    config: ModelConfig, folder: Path, graphs: Collection[str], rounds: int, compiled: bool
) -> dict[str, dict[str, float]]:
    """Milliseconds by graph and way."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    found = {}
    for spec in graph_specs(SAM3I(config).eval(), _BOXES):
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
            for name, suffix in RUNTIMES.items()
        }
        ways: dict[str, Callable[[], object]] = {"eager": lambda spec=spec, inputs=inputs: spec.run(inputs)}
        if compiled:
            ways["compile"] = _compiled(spec, inputs)
        ways |= {name: lambda run=runtime.run, inputs=inputs: run(inputs) for name, runtime in opened.items()}
        found[spec.name] = timed(ways, rounds)
        for runtime in opened.values():
            runtime.close()
    return found


def _compiled(spec: GraphSpec, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Callable[[], object]:
    """The same float network by `torch.compile`, and checked against eager."""
    module = torch.compile(spec.module, dynamic=False)
    values = [torch.from_numpy(inputs[name]) for name in spec.inputs]
    expected = spec.run(inputs)
    with torch.no_grad():
        gave = module(*values)
    for name, value in zip(spec.outputs, gave if isinstance(gave, tuple) else (gave,), strict=True):
        apart, size = np.abs(value.numpy() - expected[name]).max(), np.abs(expected[name]).max()
        if apart > 1e-3 * size:
            raise SystemExit(f"{spec.name}: torch.compile's {name} is {apart:.2g} off, of {size:.2g}")

    @torch.no_grad()
    def run() -> object:
        return module(*values)

    return run


def peak(folder: Path, runtime: str) -> int:
    """MiB that a process held most of, with all graphs open and run, one thread."""
    command = [sys.executable, str(_MEMORY), str(folder), "--runtime", runtime, "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(re.findall(r"most so far ([\d,]+) MiB", done.stdout)[-1].replace(",", ""))


def shown(name: str, ms: Mapping[str, float]) -> None:
    """Prints a row of the table."""
    best = min(ms[runtime] for runtime in RUNTIMES)
    cells = [f"{ms[way]:,.0f}" if way in ms else "" for way in ("eager", "compile", *RUNTIMES)]
    times = [f"{ms[way] / best:.1f}" if way in ms else "" for way in ("eager", "compile")]
    print(f"| {' | '.join((name, *cells, *times))} |", flush=True)


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
    parser.add_argument("--image", nargs="+", choices=IMAGE_STUDENTS, default=STUDENTS)
    parser.add_argument("--text", choices=TEXT_STUDENTS, default="mobileclip-s0")
    parser.add_argument("--side", type=int, default=336)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--image-alone", action="store_true", help="no other graphs, and so no memory")
    parser.add_argument("--texts", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.texts:
        compare_texts(given.rounds)
        return
    print("| | eager | compile | ONNX Runtime int8 | OpenVINO int8 | eager, times | compile, times |")
    print("|---|---|---|---|---|---|---|")
    images, shared = {}, {}
    for image in given.image:
        config = config_of(image, given.text, given.side)
        folder = given.folder / f"{image}-{given.text}" / str(given.side)
        graphs = ["image_encoder"] if given.image_alone else graph_names(config, _BOXES)
        write_graphs(config, folder, graphs)
        timed_here = graphs[:1] if shared else graphs  # the others are the same for all
        found = compare(config, folder, timed_here, given.rounds, given.compile)
        images[image] = found.pop("image_encoder")
        shown(image, images[image])
        for name, ms in found.items():
            shown(name, ms)
        shared |= found
    for image, ms in images.items() if shared else ():
        shown(f"{image} and detector", {way: ms[way] + shared["detector"][way] for way in ms})
    for image in given.image if shared else ():
        folder = given.folder / f"{image}-{given.text}" / str(given.side)
        peaks = [f"{peak(folder, runtime):,} MiB" for runtime in RUNTIMES]
        print(f"| {image}, most memory | | | {' | '.join(peaks)} | | |", flush=True)


if __name__ == "__main__":
    main()
