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

from sam3i_edge.export.isolated import call
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.parts import build_model, open_weights
from sam3i_edge.model.sam3i import SAM3I, BoxGraph, ImageGraph, TextGraph

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


def graph_names(config: ModelConfig, boxes: int = 0) -> list[str]:
    """The names of the graphs that a model of this config has, in the order of export."""
    levels = LEVELS if config.adapter_dim else LEVELS[:1]
    texts = [f"text_encoder.{level}" for level in levels]
    return ["image_encoder", *texts, *(["box_encoder"] if boxes else []), "detector"]


def graph_specs(model: SAM3I, boxes: int = 0) -> list[GraphSpec]:
    """The graphs of `model` with zero-filled examples of their inputs.

    Args:
        model: in eval mode.
        boxes: most boxes of one prompt, B; 0 leaves `box_encoder` out. The detector's prompt has a slot for
            each: text, B boxes, CLS.
    """
    c = model.config
    width, grid, size = c.d_model, c.grid, c.image_size
    tokens = c.text_context + boxes + 1
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
            for level in model.levels
        ),
        *(
            [
                GraphSpec(
                    "box_encoder",
                    BoxGraph(model),
                    {
                        "boxes": torch.zeros(1, boxes, 4),
                        "labels": torch.zeros(1, boxes, dtype=torch.int64),
                        "fpn_1x": maps["fpn_1x"],
                    },
                    ("geometry_tokens", "geometry_mask"),
                )
            ]
            if boxes
            else []
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


Offsets = dict[tuple[str, tuple[int, ...], str], int]
"""Where a tensor lies in the data file, by dtype, shape and sha256."""


def export_onnx(
    weights: Path,
    config: ModelConfig,
    folder: Path,
    boxes: int = 0,
    *,
    isolate: bool = False,
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, str]:
    """Writes every graph of a model and the data file they share, with one graph in memory at a time.

    Args:
        weights: folder of the model's safetensors.
        config: its sizes.
        folder: an existing, empty folder.
        boxes: as in `graph_specs`.
        isolate: export each graph in a process of its own, which gives its memory back.
        progress: called with a graph's name and the peak memory of its process, bytes, when it is written.

    Returns:
        Graph name -> file name inside `folder`.

    Raises:
        ExportError: the process of a graph died.
    """
    files = {}
    offsets: Offsets = {}
    for graph in graph_names(config, boxes):
        offsets, peak = call(_export_one, weights, config, folder, boxes, graph, offsets, isolate=isolate)
        files[graph] = f"{graph}.onnx"
        if progress:
            progress(graph, peak)
    return files


def _export_one(
    weights: Path, config: ModelConfig, folder: Path, boxes: int, graph: str, offsets: Offsets
) -> Offsets:
    model = build_model(config, open_weights(weights, graph))
    spec = next(spec for spec in graph_specs(model, boxes) if spec.name == graph)
    return write_graph(spec, folder, offsets)


def write_graph(spec: GraphSpec, folder: Path, offsets: Offsets) -> Offsets:
    """Exports one graph, and appends to the data file what is not in it yet.

    Tensors are matched by dtype, shape and content, not by name: constant folding renames them, and the three
    text encoders hold the same base weights.

    Args:
        spec: the graph; its module is in eval mode, float32, on the CPU.
        folder: where the graph and the data file lie.
        offsets: of the tensors that the data file holds already.

    Returns:
        `offsets` with the new ones.
    """
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
    graph, known = program.model, dict(offsets)
    with (folder / DATA_FILE).open("ab") as data:
        for name, value in graph.graph.initializers.items():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < _EXTERNAL_BYTES:
                continue
            array = np.ascontiguousarray(tensor.numpy())
            content = array.reshape(-1).view(np.uint8).data
            key = (str(array.dtype), array.shape, hashlib.sha256(content).hexdigest())
            if key not in known:
                data.write(b"\0" * (-data.tell() % _ALIGNMENT))
                known[key] = data.tell()
                data.write(content)
            value.const_value = onnx_ir.ExternalTensor(
                location=DATA_FILE,
                offset=known[key],
                length=array.nbytes,
                dtype=tensor.dtype,
                shape=onnx_ir.Shape(array.shape),
                name=name,
                base_dir=str(folder),
            )
    graph.producer_name = "sam3i-edge"
    for node in graph.graph:
        node.metadata_props.clear()  # stack traces of the exporting machine
    onnx_ir.save(graph, folder / f"{spec.name}.onnx")
    return known


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
