"""What each change for speed gives, switched off and on in turn: `python benchmarks/changes.py [BUNDLE]`.

Prints the rows of the table in docs/performance.md: medians of both, and the quotient with its 95 % interval.
BUNDLE is the bundled model unless named; the rows of int8 need one with an onnx-int8 variant, those of
OpenVINO one with openvino-int8 and openvino-int8-bf16.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.devices import machine
from sam3i_edge.masks import native
from sam3i_edge.measure.questions import questions
from sam3i_edge.measure.statistics import speedup
from sam3i_edge.measure.worker import hold_to
from sam3i_edge.pipeline.preprocess import to_pixel_values
from sam3i_edge.runtimes import open_runtime
from sam3i_edge.runtimes.ort import WAITING
from studies.curves import disks
from studies.sides import random_inputs
from studies.turns import in_turn

GRAPHS = ("image_encoder", "text_encoder.simple", "detector")
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Change:
    """One change: what runs without it and with it, and how often each."""

    name: str
    before: Callable[[], object]
    after: Callable[[], object]
    rounds: int = 40


def session(
    path: Path, threads: int, waiting: dict[str, str] = WAITING, fused: bool = True, arena: bool = False
) -> Callable[[], object]:
    """Runs a graph by ONNX Runtime under the settings of `sam3i_edge.runtimes.ort`, or with one changed."""
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if fused else level.ORT_ENABLE_BASIC
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    for name, value in waiting.items():
        options.add_session_config_entry(name, value)
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = random_inputs(opened)
    return lambda: opened.run(None, given)


def pictures() -> Iterator[Change]:
    """Pre- and post-processing: the library of native/ beside its definition in Python."""
    rng = np.random.default_rng(0)
    for (height, width), side in (((480, 640), 224), ((1080, 1920), 1008), ((2160, 3840), 1008)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

        def prepare(implementation: native.Implementation, image: Any = image, side: int = side) -> object:
            return to_pixel_values(image, side, HALF, HALF, implementation=implementation)

        yield Change(
            f"picture of {width} x {height} to {side} px, native",
            lambda prepare=prepare: prepare("reference"),  # type: ignore[misc]
            lambda prepare=prepare: prepare("native"),  # type: ignore[misc]
        )
    logits = disks(8)

    def runs(implementation: native.Implementation) -> object:
        return [native.mask_rle(one, (1080, 1920), implementation=implementation) for one in logits]

    yield Change("8 masks of 288 x 288 to run lengths at 1080p, native", lambda: runs("reference"),
                 lambda: runs("native"), 10)  # fmt: skip


def graphs(bundle: Bundle, threads: int) -> Iterator[Change]:
    """What ONNX Runtime is told, and what it is given."""
    variants = bundle.manifest.variants
    for variant in ("onnx-fp32", "onnx-int8"):
        if variant not in variants:
            continue
        for graph in GRAPHS:
            path, what = bundle.graphs(variant)[graph], f"{variant} {graph}"
            told = session(path, threads)
            yield Change(f"{what}: its own fusions", session(path, threads, fused=False), told)
            # Not beside threads that spin on: they take the core from whoever runs in turn with them.
            asleep = session(path, threads, {"session.intra_op.allow_spinning": "0"})
            yield Change(f"{what}: threads that spin for 50 us, not 0", asleep, told)
            yield Change(f"{what}: no memory arena", session(path, threads, arena=True), told)
            if threads > 1:
                yield Change(f"{what}: {threads} threads", session(path, 1), told)
            if variant == "onnx-int8":
                float_path = bundle.graphs("onnx-fp32")[graph]
                yield Change(f"{graph}: int8 instead of fp32", session(float_path, threads), told)


def openvino(bundle: Bundle, threads: int) -> Iterator[Change]:
    """bfloat16 beside integers, and OpenVINO instead of ONNX Runtime."""
    variants = bundle.manifest.variants
    for graph in GRAPHS:

        def run(variant: str, runtime: str, graph: str = graph) -> Callable[[], object]:
            opened = open_runtime(runtime, bundle.graphs(variant)[graph], "cpu", threads=threads)
            given = random_inputs(
                onnxruntime.InferenceSession(
                    bundle.graphs("onnx-fp32")[graph], providers=["CPUExecutionProvider"]
                )
            )
            return lambda: opened.run(given)

        if {"onnx-int8", "openvino-int8"} <= variants.keys():
            yield Change(f"{graph}: int8 by OpenVINO instead of ONNX Runtime",
                         run("onnx-int8", "onnxruntime"), run("openvino-int8", "openvino"))  # fmt: skip
        if {"openvino-int8", "openvino-int8-bf16"} <= variants.keys():
            yield Change(f"{graph}: int8-bf16 instead of int8 by OpenVINO",
                         run("openvino-int8", "openvino"), run("openvino-int8-bf16", "openvino"))  # fmt: skip


def sdk(bundle: Bundle, threads: int) -> Iterator[Change]:
    """What `Segmenter` keeps, and what importing the package loads."""
    asked = questions("simple")
    cached = Segmenter(bundle.root, "cpu", "fp32", threads=threads)
    fresh = Segmenter(bundle.root, "cpu", "fp32", threads=threads, image_cache=0, instruction_cache=0)
    scene, bare = cached.encode(asked[0].image), fresh.encode(asked[0].image)
    text = asked[0].text
    yield Change(
        "one more instruction: its text is known", lambda: bare.segment(text), lambda: scene.segment(text)
    )
    yield Change(
        "one more instruction: its picture is encoded once",
        lambda: fresh.segment(asked[0].image, text),
        lambda: bare.segment(text),
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def python(code: str) -> object:
        return subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    everything = "import sam3i_edge.segmenter, sam3i_edge.runtimes.ort, sam3i_edge.result, sam3i_edge.stream"
    yield Change("a process that imports the package: names loaded on first use",
                 lambda: python(everything), lambda: python("import sam3i_edge"), 10)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="sam3i-nano")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    hold_to(given.threads)
    bundle = Bundle.open(find_bundle(given.bundle))
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{machine.inspect().processor}, {given.threads} threads, onnxruntime {onnxruntime.__version__}, "
          f"{date.today()}, load before {load}\n")  # fmt: skip
    print("| change | without, ms | with, ms | times faster |\n|---|---|---|---|")
    for source in (pictures(), graphs(bundle, given.threads), openvino(bundle, given.threads),
                   sdk(bundle, given.threads)):  # fmt: skip
        for change in source:
            before, after = in_turn(change.before, change.after, change.rounds)
            ratio = speedup(before, after)
            print(f"| {change.name} | {np.median(before):.2f} | {np.median(after):.2f} | "
                  f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
