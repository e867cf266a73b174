"""The graphs of a model as ONNX files that share one data file."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir
import torch
from torch import nn

from sam3i_edge.levels import LEVELS
from sam3i_edge.model.sam3i import SAM3I, ImageGraph, TextGraph

# 20 is the last opset whose quantized files ONNX Runtime 1.31 reads; float graphs use the same.
OPSET = 20
DATA_FILE = "weights.data"
# Smaller tensors stay inside the graph: shape constants must, and sharing them saves nothing.
_EXTERNAL_BYTES = 1024
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One graph to export.

    Attributes:
        name: as in the bundle: "image_encoder", "text_encoder.simple", ….
        module: what is traced.
        inputs: input name -> example tensor; shapes are static.
        outputs: output names in order.
    """

    name: str
    module: nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]


def graph_specs(model: SAM3I) -> list[GraphSpec]:
    """The graphs of `model` with zero-filled examples of their inputs."""
    c = model.config
    width, grid, size = c.d_model, c.grid, c.image_size
    tokens = c.text_context + 1
    maps = {f"fpn_{factor}x": torch.zeros(1, width, factor * grid, factor * grid) for factor in (4, 2, 1)}
    ids = torch.zeros(1, c.text_context, dtype=torch.int64)
    return [
        GraphSpec(
            "image_encoder",
            ImageGraph(model),
            {"pixel_values": torch.zeros(1, 3, size, size)},
            (*maps, "cls_token"),
        ),
        *(
            GraphSpec(
                f"text_encoder.{level}", TextGraph(model, level), {"input_ids": ids}, ("text_features",)
            )
            for level in LEVELS
        ),
        GraphSpec(
            "detector",
            model.detector,
            {
                **maps,
                "prompt": torch.zeros(1, tokens, width),
                "prompt_mask": torch.ones(1, tokens, dtype=torch.bool),
                "level": torch.zeros(1, dtype=torch.int64),
            },
            ("scores", "boxes", "mask_logits", "presence"),
        ),
    ]


def export_onnx(model: SAM3I, folder: Path, progress: Callable[[str], None] | None = None) -> dict[str, str]:
    """Writes every graph of `model` and the data file they share.

    Tensors are matched by dtype, shape and content, not by name: constant folding renames them, and the three
    text encoders hold the same base weights.

    Args:
        model: in eval mode, float32, on the CPU.
        folder: an existing, empty folder.
        progress: called with each graph's name before it is exported.

    Returns:
        Graph name -> file name inside `folder`.
    """
    files = {}
    with (folder / DATA_FILE).open("wb") as data:
        offsets: dict[tuple[str, tuple[int, ...], str], int] = {}
        for spec in graph_specs(model):
            if progress:
                progress(spec.name)
            with _quiet():
                program = torch.onnx.export(
                    spec.module,
                    tuple(spec.inputs.values()),
                    dynamo=True,
                    opset_version=OPSET,
                    input_names=list(spec.inputs),
                    output_names=list(spec.outputs),
                    verbose=False,
                )
            if program is None:
                raise RuntimeError(f"torch.onnx.export returned nothing for {spec.name}")
            graph = program.model
            for name, value in graph.graph.initializers.items():
                tensor = value.const_value
                if tensor is None or tensor.nbytes < _EXTERNAL_BYTES:
                    continue
                array = np.ascontiguousarray(tensor.numpy())
                content = array.tobytes()
                key = (str(array.dtype), array.shape, hashlib.sha256(content).hexdigest())
                if key not in offsets:
                    data.write(b"\0" * (-data.tell() % _ALIGNMENT))
                    offsets[key] = data.tell()
                    data.write(content)
                value.const_value = onnx_ir.ExternalTensor(
                    location=DATA_FILE,
                    offset=offsets[key],
                    length=array.nbytes,
                    dtype=tensor.dtype,
                    shape=onnx_ir.Shape(array.shape),
                    name=name,
                    base_dir=str(folder),
                )
            files[spec.name] = f"{spec.name}.onnx"
            graph.producer_name = "sam3i-edge"
            for node in graph.graph:
                node.metadata_props.clear()  # stack traces of the exporting machine
            onnx_ir.save(graph, folder / files[spec.name])
    return files


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's chatter (absent torchvision, its own deprecations) off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
