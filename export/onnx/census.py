"""How much of a graph's linear work runs in integer kernels, read from what ONNX Runtime made of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir
import onnxruntime

# Integer kernels, with the place of the weight among their inputs.
_INTEGER = {"QLinearConv": 3, "QGemm": 3, "QLinearMatMul": 3, "MatMulIntegerToFloat": 1}
# What passes a weight on.
_PASSES = (
    "DequantizeLinear", "Transpose", "Cast", "Mul", "Reshape", "Unsqueeze", "Squeeze", "Gather", "Concat"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Census:
    """Multiply-adds of products with weights (linear layers and convolutions; attention has none).

    Attributes:
        integer: in integer kernels of the optimised graph.
        total: all.
        kernels: how often each integer operator occurs, `MatMulNBits` among them.
    """

    integer: int
    total: int
    kernels: dict[str, int]

    @property
    def share(self) -> float:
        """Integer over all, 0..1."""
        return self.integer / max(self.total, 1)

    def __add__(self, other: Census) -> Census:
        names = self.kernels.keys() | other.kernels.keys()
        kernels = {name: self.kernels.get(name, 0) + other.kernels.get(name, 0) for name in sorted(names)}
        return Census(self.integer + other.integer, self.total + other.total, kernels)


def census(path: Path) -> Census:
    """Counts one ONNX file; opens a session of ONNX Runtime's CPU provider to see the optimised graph."""
    work = linear_work(ir.load(path))
    with TemporaryDirectory(dir=path.parent) as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        optimised = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(optimised)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "data")
        options.add_session_config_entry("session.disable_prepacking", "1")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = ir.load(optimised).graph
        kernels: dict[str, int] = {}
        in_integers: set[str] = set()
        for node in graph:
            if node.op_type in _INTEGER:
                kernels[node.op_type] = kernels.get(node.op_type, 0) + 1
                weight = node.inputs[_INTEGER[node.op_type]]
                if weight is not None and weight.name is not None:
                    in_integers.add(weight.name)
            elif node.op_type == "MatMulNBits":
                kernels[node.op_type] = kernels.get(node.op_type, 0) + 1
    return Census(sum(n for name, n in work.items() if name in in_integers), sum(work.values()), kernels)


def linear_work(model: ir.Model) -> dict[str, int]:
    """Multiply-adds of every product with a weight, by the name of the weight; shapes are static."""
    work: dict[str, int] = {}
    dynamic: dict[str, bool] = {}
    for node in model.graph:
        for value in node.outputs:
            dynamic[value.name or ""] = any(_depends(i, dynamic) for i in node.inputs if i is not None)
        if node.op_type in ("MatMul", "Gemm", "Conv", "ConvTranspose", "MatMulNBits"):
            x, weight = node.inputs[0], node.inputs[1]
            if x is None or weight is None or _depends(weight, dynamic) or not _depends(x, dynamic):
                continue
            name = _origin(weight)
            work[name] = work.get(name, 0) + _multiply_adds(node, x, weight)
    return work


def _depends(value: ir.Value, dynamic: dict[str, bool]) -> bool:
    """Whether a value depends on what the graph is given, `level` aside: that only chooses weights."""
    if value.is_graph_input():
        return value.name != "level"
    return dynamic.get(value.name or "", False)


def _origin(value: ir.Value) -> str:
    producer = value.producer()
    if producer is None or producer.op_type not in _PASSES or producer.inputs[0] is None:
        return value.name or ""
    return _origin(producer.inputs[0])


def _multiply_adds(node: ir.Node, x: ir.Value, weight: ir.Value) -> int:
    out, taken = _shape(node.outputs[0]), _shape(x)
    if node.op_type == "MatMulNBits":
        return prod(out) * node.attributes["K"].as_int()
    if node.op_type == "Conv":
        return prod(out) * prod(_shape(weight)[1:])
    if node.op_type == "ConvTranspose":
        return prod(taken) * prod(_shape(weight)[1:])
    return prod(out) * taken[-1]


def _shape(value: ir.Value) -> list[int]:
    sizes = [] if value.shape is None else [size for size in value.shape if isinstance(size, int)]
    if value.shape is None or len(sizes) != len(value.shape):
        raise ValueError(f"{value.name} has no static shape: {value.shape}")
    return sizes
