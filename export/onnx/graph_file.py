"""The graphs of a model as ONNX files that share one data file."""

from __future__ import annotations

import ast
import copy
import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import torch

from sam3i_edge.errors import ExportError
from sam3i_edge.export.float32_places import stays_float32
from sam3i_edge.export.isolated import call, done
from sam3i_edge.export.onnx.quantized_nodes import rewrite, with_placeholders
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.graph_specs import GraphSpec, graph_names, graph_specs
from sam3i_edge.quantize.spec import QuantSpec, open_model
from sam3i_edge.runtimes import Progress, untold

# 20 is the last opset whose quantized files ONNX Runtime 1.31 reads; float graphs use the same.
OPSET = 20
DATA_FILE = "weights.data"
# Smaller tensors stay inside the graph: shape constants must, and sharing them saves nothing.
_EXTERNAL_BYTES = 1024
_ALIGNMENT = 64


Offsets = dict[tuple[str, tuple[int, ...], str], int]
"""Where a tensor lies in the data file, by dtype, shape and sha256."""


def export_onnx(
    source: Path,
    config: ModelConfig,
    folder: Path,
    boxes: int = 0,
    *,
    half: bool = False,
    isolate: bool = False,
    progress: Progress = untold,
) -> dict[str, str]:
    """Writes every graph of a model and the data file they share, with one graph in memory at a time.

    Args:
        source: as in `open_model`.
        config: its sizes.
        folder: an existing, empty folder.
        boxes: as in `graph_specs`.
        half: float16 inside, float32 at inputs and outputs, in norms and softmax, and where
            boxes are computed.
        isolate: export each graph in a process of its own, which gives its memory back.
        progress: called before each graph, and when it is written.

    Returns:
        Graph name -> file name inside `folder`.

    Raises:
        ExportError: the process of a graph died.
    """
    files = {}
    offsets: Offsets = {}
    names = graph_names(config, boxes)
    for number, graph in enumerate(names):
        words = f"exporting {graph}"
        progress(words, number / len(names))
        offsets, peak = call(
            export_graph, source, config, folder, boxes, graph, offsets, half, isolate=isolate
        )
        files[graph] = f"{graph}.onnx"
        progress(done(words, peak, isolate), (number + 1) / len(names))
    return files


def export_graph(
    source: Path, config: ModelConfig, folder: Path, boxes: int, graph: str, offsets: Offsets, half: bool
) -> Offsets:
    """One graph of `export_onnx`; arguments as there and in `write_graph`."""
    quantized = None if source.is_dir() else QuantSpec.load(source, graph)
    model = open_model(source, config, graph) if quantized is None else quantized.build(config)
    spec = next(spec for spec in graph_specs(model, boxes) if spec.name == graph)
    return write_graph(spec, folder, offsets, quantized=quantized, half=half)


def write_graph(
    spec: GraphSpec,
    folder: Path,
    offsets: Offsets,
    *,
    quantized: QuantSpec | None = None,
    half: bool = False,
) -> Offsets:
    """Exports one graph, and appends to the data file what is not in it yet.

    Tensors are matched by dtype, shape and content, not by name: constant folding renames them, and the three
    text encoders hold the same base weights.

    Args:
        spec: the graph; its module is in eval mode, float32, on the CPU.
        folder: where the graph and the data file lie.
        offsets: of the tensors that the data file holds already.
        quantized: what the module's quantized layers come from.
        half: as in `export_onnx`.

    Returns:
        `offsets` with the new ones.
    """
    graph, known = traced(spec), dict(offsets)
    if quantized is not None:
        rewrite(graph, quantized, "detector." if spec.name == "detector" else "")
    if half:
        graph = _to_half(graph)
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
    save(graph, folder / f"{spec.name}.onnx")
    return known


def traced(spec: GraphSpec) -> onnx_ir.Model:
    """The graph of a module, with its tensors inside."""
    with _quiet():
        program = torch.onnx.export(
            with_placeholders(spec.module),
            tuple(spec.inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"torch.onnx.export returned nothing for {spec.name}")
    return program.model


def save(graph: onnx_ir.Model, path: Path) -> None:
    """Writes a graph, without what it tells of the exporting machine."""
    graph.producer_name = "sam3i-edge"
    for node in graph.graph:
        node.metadata_props.clear()  # stack traces
    onnx_ir.save(graph, path)


def _to_half(graph: onnx_ir.Model) -> onnx_ir.Model:
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    # Their sums and squares pass float16's largest value, 65504, or need more digits than it has.
    wide = [*DEFAULT_OP_BLOCK_LIST, "Softmax", "LayerNormalization", "InstanceNormalization"]
    exact = [node.name for node in graph.graph if stays_float32(_modules(node), node.op_type)]
    with _quiet():
        converted = convert_float_to_float16(
            onnx_ir.to_proto(graph),
            keep_io_types=True,
            disable_shape_infer=False,
            op_block_list=wide,
            node_block_list=exact,
        )
    # It writes the cast of a value once for each reader, all under one name.
    first: dict[str, onnx.NodeProto] = {}
    for node in converted.graph.node:
        if first.setdefault(node.output[0], node) != node:
            raise ExportError(f"converting to float16 gave two different values {node.output[0]!r}")
    nodes = _without_rounding([copy.deepcopy(node) for node in first.values()])
    del converted.graph.node[:]
    converted.graph.node.extend(nodes)
    model: onnx_ir.Model = onnx_ir.from_proto(converted)
    return model


def _modules(node: onnx_ir.Node) -> list[str]:
    """The classes that a traced node ran in, outermost first."""
    written = node.metadata_props.get("pkg.torch.onnx.class_hierarchy", "['']")
    modules: list[str] = ast.literal_eval(written)[:-1]  # the last is the operator
    return modules


def _without_rounding(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes that compute in float32 hand their values on as they are, where both ends do."""
    made = {name: node for node in nodes for name in node.output}
    wide: dict[str, str] = {}
    for node in nodes:
        before = made.get(node.input[0]) if _casts(node, onnx.TensorProto.FLOAT) else None
        if before is None or not _casts(before, onnx.TensorProto.FLOAT16):
            continue
        # The converter's own names: for what is float32, and for what is so again.
        if before.input[0].endswith("_cast_to_fp16") and node.output[0].endswith("_cast_to_fp32"):
            wide[node.output[0]] = before.input[0]
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = wide.get(name, name)
    return [node for node in nodes if not node.output or node.output[0] not in wide]


def _casts(node: onnx.NodeProto, to: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == to for a in node.attribute)


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
