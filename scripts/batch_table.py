"""Prints what a batch of instructions would save: the table of docs/many.md.

    python scripts/batch_table.py [BUNDLE]

The text encoder and the detector of a bundle are exported as ONNX graphs of 1, 4 and 16 instructions a run,
and timed on this machine's CPU with ONNX Runtime, one thread: milliseconds of that thread an instruction, the
median of runs that take turns.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.export.onnx.graph_file import write_graph
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.detector import Detector
from sam3i_edge.model.graph_specs import GraphSpec, graph_specs
from sam3i_edge.quantize.spec import open_model

_SIZES = (1, 4, 16)
_RUNS = 7


class _Batched(nn.Module):
    """The detector for one image and N instructions."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *maps, prompt, mask, level = inputs
        count = prompt.shape[0]
        return self.detector(*(one.expand(count, -1, -1, -1) for one in maps), prompt, mask, level)


def main() -> None:
    """Exports, times and prints."""
    bundle = Bundle.open(find_bundle(sys.argv[1] if len(sys.argv) > 1 else "sam3i-nano"))
    config = ModelConfig.from_dict(bundle.manifest.model)
    model = open_model(bundle.root / "weights", config)
    specs = {spec.name: spec for spec in graph_specs(model)}
    print("| graph | instructions a run | ms an instruction |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("text_encoder.complex", "detector"):
            sessions = {
                size: _session(_sized(specs[name], size), Path(folder, f"{name}-{size}")) for size in _SIZES
            }
            given = {size: _inputs(_sized(specs[name], size)) for size in _SIZES}
            spent: dict[int, list[float]] = {size: [] for size in _SIZES}
            for _ in range(_RUNS):
                for size, session in sessions.items():
                    began = time.thread_time()
                    found = session.run(None, given[size])
                    spent[size].append(1e3 * (time.thread_time() - began) / size)
                    assert all(np.isfinite(value).all() for value in found)
            for size in _SIZES:
                print(f"| {name} | {size} | {np.median(spent[size]):.2f} |")


def _sized(spec: GraphSpec, count: int) -> GraphSpec:
    """The graph with `count` instructions: every input but the maps of the image."""
    inputs = {
        name: value if name.startswith("fpn") else value.repeat_interleave(count, 0)
        for name, value in spec.inputs.items()
    }
    module = _Batched(spec.module) if isinstance(spec.module, Detector) and count > 1 else spec.module
    return replace(spec, module=module, inputs=inputs)


def _inputs(spec: GraphSpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(value.shape).astype(np.float32)
        if value.is_floating_point()
        else (rng.integers(1, 500, value.shape) if name == "input_ids" else value.numpy())
        for name, value in spec.inputs.items()
    }


def _session(spec: GraphSpec, folder: Path) -> onnxruntime.InferenceSession:
    folder.mkdir()
    write_graph(spec, folder, {})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        folder / f"{spec.name}.onnx", options, providers=["CPUExecutionProvider"]
    )


if __name__ == "__main__":
    main()
