"""Two graphs that prove that a runtime runs, encoded here: the base install has no onnx package to do it.

Numbers are field numbers of onnx.proto (ModelProto, GraphProto, NodeProto, ValueInfoProto, TypeProto); a
field is its number and wire type in one byte, then a byte, or a string that its length precedes in one byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIDE = 16


def add_graph() -> bytes:
    """The ONNX model y = x + x for x float32 [1]."""
    return _model([_node("Add", ["x", "x"], "y")], [1])


def tiny_graph() -> bytes:
    """The ONNX model y = softmax(x @ x) for x float32 [16, 16]: a product and a function."""
    return _model([_node("MatMul", ["x", "x"], "z"), _node("Softmax", ["z"], "y")], [_SIDE, _SIDE])


def tiny_input() -> NDArray[np.float32]:
    """An input of `tiny_graph`: [16, 16], -1..1, always the same."""
    return np.random.default_rng(0).uniform(-1, 1, (_SIDE, _SIDE)).astype(np.float32)


def tiny_output() -> NDArray[np.float32]:
    """What `tiny_graph` makes of `tiny_input`, computed in float64 and rounded once."""
    x = tiny_input().astype(np.float64)
    powers = np.exp(x @ x)
    output: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return output


def _model(nodes: list[bytes], shape: list[int]) -> bytes:
    tensor = _block(2, *(_block(1, _number(1, side)) for side in shape))
    float_type = _block(1, _number(1, 1), tensor)  # element type 1 is FLOAT
    values = [
        _block(field, _block(1, name), _block(2, float_type)) for field, name in ((11, b"x"), (12, b"y"))
    ]
    graph = _block(7, *nodes, _block(2, b"tiny"), *values)
    return _number(1, 8) + graph + _block(8, _number(2, 17))  # IR version 8, opset 17


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    names = [_block(1, name.encode()) for name in inputs]
    return _block(1, *names, _block(2, output.encode()), _block(4, operator.encode()))


def _number(field: int, value: int) -> bytes:
    return bytes((field << 3, value))


def _block(field: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return bytes((field << 3 | 2, len(content))) + content
