"""The variant that runs in LiteRT, on Android: one .tflite a graph."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from sam3i_edge.errors import ExportError
from sam3i_edge.export.gate import Gate
from sam3i_edge.export.isolated import call, done
from sam3i_edge.export.litert.flatbuffer import Graph, IntegerWeight
from sam3i_edge.export.staged import FileGraphs
from sam3i_edge.export.targets import Written
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.graph_specs import GraphSpec, graph_names, graph_specs
from sam3i_edge.quantize.modules import QuantizedLayer, fake_quantize
from sam3i_edge.quantize.spec import QuantSpec, open_model, replace_module


def write(place: Path, gate: Gate, precision: str, quantized: Path | None) -> Written:
    """Converts the graphs and reads integers back; see `sam3i_edge.export.targets.Target`.

    Raises:
        ExportError: the converter is not installed, or the integers in the files are not those of the spec.
    """
    source, names = gate.weights if quantized is None else quantized, graph_names(gate.config, gate.boxes)
    files = {graph: f"{graph}.tflite" for graph in names}
    for number, (graph, file) in enumerate(files.items()):
        words = f"converting {graph} for LiteRT"
        gate.tell(words, number / len(files))
        _, peak = call(
            convert_graph,
            source,
            gate.config,
            gate.boxes,
            graph,
            place / file,
            precision,
            isolate=gate.isolate,
        )
        gate.tell(done(words, peak, gate.isolate), (number + 1) / len(files))
    figures: dict[str, float] = {}
    if quantized is not None:
        paths = {graph: place / file for graph, file in files.items()}
        figures["equal_layers"] = check_integers(QuantSpec.load(quantized), paths)
        figures["integer_share"] = 0.0  # LiteRT's integer kernels give integers, and our layers floats
    return Written(files=files, source=partial(FileGraphs, runtime="litert"), figures=figures)


def convert_graph(
    source: Path, config: ModelConfig, boxes: int, graph: str, path: Path, precision: str
) -> None:
    """Writes one graph of a model.

    Args:
        source: as in `open_model`.
        config: its sizes.
        boxes: as in `graph_specs`.
        graph: its name.
        path: of the .tflite.
        precision: "fp16" keeps large float weights in float16; integers are those of `source`.
    """
    model = open_model(source, config, graph)
    spec = next(spec for spec in graph_specs(model, boxes) if spec.name == graph)
    write_tflite(spec, path, half=precision == "fp16", quantized=not source.is_dir())


def write_tflite(spec: GraphSpec, path: Path, *, half: bool = False, quantized: bool = False) -> None:
    """Converts one graph; inputs and outputs keep their names, and int64 inputs become int32.

    Args:
        spec: the graph; its module is in eval mode, float32, on the CPU.
        path: of the .tflite.
        half: keep large float weights in float16.
        quantized: the module has quantized layers, whose integers are kept.
    """
    if quantized:
        for name, module in list(spec.module.named_modules()):
            if isinstance(module, QuantizedLayer) and module.kind != "embedding":
                replace_module(spec.module, name, _Rounded(module))
    converter = _converter()
    with _quiet():
        converter.convert(_Named(spec), sample_kwargs=dict(spec.inputs)).export(str(path))
    if half or quantized:
        graph = Graph(path)
        if quantized:
            graph.fold_weights()
        if half:
            graph.halve()
        graph.save()


def check_integers(spec: QuantSpec, graphs: Mapping[str, Path]) -> int:
    """Looks for the integers and scales of the spec in files, by content, as LiteRT renames weights.

    Returns:
        The number of layers found; that is all of them.

    Raises:
        ExportError: a layer is in no file.
    """
    held = {_key(weight) for path in graphs.values() for weight in Graph(path).integer_weights()}
    missing = sorted(name for name in spec.layers if not _keys(spec, name) & held)
    if missing:
        raise ExportError(
            f"the integers or scales of {len(missing)} quantized layers are in no .tflite, the first is "
            f"{missing[0]}"
        )
    return len(spec.layers)


_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_ops = torch.ops.quantized_decomposed
_Key = tuple[tuple[int, ...], bytes, bytes]


def _key(weight: IntegerWeight) -> _Key:
    """The integers with their channels first."""
    integers = np.moveaxis(weight.integers, weight.axis, 0)
    return integers.shape, np.ascontiguousarray(integers).tobytes(), weight.scale.tobytes()


def _keys(spec: QuantSpec, name: str) -> set[_Key]:
    """The layouts that a layer may have: the spec's, and height and width before the input's channels."""
    layer = spec.layers[name]
    integers: NDArray[np.int8] = spec.tensors[f"{name}.weight"].numpy()
    scale: NDArray[np.float32] = spec.tensors[f"{name}.weight_scale"].numpy()
    axis = 1 if layer.kind == "conv_transpose2d" else 0
    first = np.moveaxis(integers, axis, 0)
    found = [first] if first.ndim == 2 else [first, first.transpose(0, 2, 3, 1)]
    return {_key(IntegerWeight(one, scale, 0)) for one in found}


class _Named(nn.Module):
    """A graph that takes and gives its arrays by name: the converter takes the names from there."""

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__()
        self.module, self._inputs, self._outputs = spec.module, tuple(spec.inputs), spec.outputs

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.module(*(inputs[name] for name in self._inputs))
        return dict(zip(self._outputs, found if isinstance(found, tuple) else (found,), strict=True))


class _Rounded(nn.Module):
    """A quantized layer whose weights are floats that the graph rounds to their integers.

    The converter knows no constant of integers with scales; `Graph.fold_weights` folds what it makes of this.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None
    _zero: torch.Tensor

    def __init__(self, layer: QuantizedLayer) -> None:
        super().__init__()
        self._kind, self._options = layer.kind, layer.options
        self._input = layer.input_scale, layer.input_zero
        self._output = layer.output_scale, layer.output_zero
        self.register_buffer("weight", layer.dequantized_weight())
        self.register_buffer("scale", layer.weight_scale)
        self.register_buffer("bias", layer.bias)
        self.register_buffer("_zero", torch.zeros(len(layer.weight_scale), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        described = (
            self.scale,
            self._zero,
            1 if self._kind == "conv_transpose2d" else 0,
            -127,
            127,
            torch.int8,
        )
        weight = _ops.dequantize_per_channel(_ops.quantize_per_channel(self.weight, *described), *described)
        x = _round(x, *self._input)
        if self._kind == "linear":
            x = F.linear(x, weight, self.bias)
        elif self._kind == "conv2d":
            x = F.conv2d(x, weight, self.bias, **self._options)
        else:
            x = F.conv_transpose2d(x, weight, self.bias, **self._options)
        return _round(x, *self._output)


def _round(x: torch.Tensor, scale: float | None, zero: int) -> torch.Tensor:
    """As `fake_quantize`; as it is without a scale."""
    # Times 1: of a rounded activation that two read, litert-torch 0.10 loses the order of the channels.
    return x if scale is None else fake_quantize(x, scale, zero) * 1


def _converter() -> ModuleType:
    try:
        with _quiet():
            import litert_torch
    except ImportError as missing:
        raise ExportError(
            f"LiteRT's converter cannot be imported ({missing}): pip install --no-deps -r {_REQUIREMENTS}"
        ) from missing
    module: ModuleType = litert_torch
    return module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch warns of, and what the converter tells of its steps and of 64-bit inputs."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
