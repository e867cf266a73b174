"""A .tflite file as objects: integer and float16 weights are put into it here, and read back.

LiteRT's converter keeps a quantized weight as a float constant that a QUANTIZE operator rounds at run time.
These operators are computed here, so that the file holds the integers, and so is a transposition behind them.
Products still read floats, from a DEQUANTIZE operator; of a constant LiteRT runs it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from sam3i_edge.errors import ExportError

_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT8: np.int8,
}
_SMALL = 1024  # bytes; smaller constants stay float32


@dataclass(frozen=True, slots=True)
class IntegerWeight:
    """A constant of integers.

    Attributes:
        integers: int8, in the file's layout.
        scale: float32 [N].
        axis: that the scales run along.
    """

    integers: NDArray[np.int8]
    scale: NDArray[np.float32]
    axis: int


class Graph:
    """The one graph of a file; its operators are changed in place.

    Raises:
        ExportError: the file has another number of graphs, or its weights lie behind the flatbuffer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._model = flatbuffer_utils.read_model(path)
        if len(self._model.subgraphs) != 1 or any(buffer.offset > 1 for buffer in self._model.buffers):
            raise ExportError(
                f"{path.name} has {len(self._model.subgraphs)} graphs or is over 2 GiB: want one"
            )
        self._graph = self._model.subgraphs[0]

    def save(self) -> None:
        """Writes the file again, without constants that nothing uses any more."""
        read = self._read() | set(self._graph.outputs)
        for index, tensor in enumerate(self._graph.tensors):
            if index not in read:
                tensor.buffer = 0  # an empty one, by the format's rule
        used = {tensor.buffer for tensor in self._graph.tensors}
        used |= {entry.buffer for entry in self._model.metadata or ()}
        for index, buffer in enumerate(self._model.buffers):
            if index not in used:
                buffer.data = None
        flatbuffer_utils.write_model(self._model, self._path)

    def integer_weights(self) -> Iterator[IntegerWeight]:
        """The constants that have integers and a scale for each output channel or row of a table."""
        for index, tensor in enumerate(self._graph.tensors):
            scale = None if tensor.quantization is None else tensor.quantization.scale
            value = self._constant(index)
            if value is not None and value.dtype == np.int8 and scale is not None:
                axis = int(tensor.quantization.quantizedDimension)
                yield IntegerWeight(value, np.asarray(scale, np.float32), axis)
        looked_up: dict[int, list[NDArray[Any]]] = {}
        for operator in self._all("EMBEDDING_LOOKUP"):
            table = self._constant(operator.inputs[1])
            if table is not None:
                looked_up.setdefault(operator.inputs[0], []).append(table)
        for tables in looked_up.values():  # by the same ids
            scales = [table for table in tables if table.shape[1] == 1 and table.dtype == np.float32]
            for table in tables:
                if table.dtype == np.int8 and len(scales) == 1:
                    yield IntegerWeight(table, scales[0][:, 0], 0)

    def fold_weights(self) -> None:
        """Computes QUANTIZE of constants, and the transposition of what these are made to floats again."""
        for operator in self._all("QUANTIZE"):
            value = self._constant(operator.inputs[0])
            if value is not None:
                self._fill(operator.outputs[0], self._integers(value, operator.outputs[0]))
                self._graph.operators.remove(operator)
        makers = {operator.outputs[0]: operator for operator in self._all("DEQUANTIZE")}
        for operator in self._all("TRANSPOSE", "RESHAPE"):
            maker = makers.get(operator.inputs[0])
            value = None if maker is None else self._constant(maker.inputs[0])
            if maker is not None and value is not None:
                self._move(operator, maker, value)
        read = self._read() | set(self._graph.outputs)
        for operator in self._all("DEQUANTIZE"):
            if operator.outputs[0] not in read:
                self._graph.operators.remove(operator)

    def halve(self) -> None:
        """Keeps large float constants in float16, and makes them float32 where they are used."""
        for index in range(len(self._graph.tensors)):
            value = self._constant(index)
            if value is None or value.dtype != np.float32 or value.nbytes < _SMALL:
                continue
            tensor = self._graph.tensors[index]
            half = schema.TensorT(
                shape=tensor.shape, type=schema.TensorType.FLOAT16, buffer=0, name=tensor.name + b"_half"
            )
            self._graph.tensors.append(half)
            self._fill(len(self._graph.tensors) - 1, value.astype(np.float16))
            tensor.buffer = 0
            self._graph.operators.insert(0, self._dequantize(len(self._graph.tensors) - 1, index))

    def _move(self, operator: Any, maker: Any, value: NDArray[Any]) -> None:
        """Puts a transposition or reshape before DEQUANTIZE, into its constant."""
        source, target = (self._graph.tensors[index] for index in (maker.inputs[0], operator.outputs[0]))
        axis = int(source.quantization.quantizedDimension)
        if self._kind(operator) == "TRANSPOSE":
            order = self._constant(operator.inputs[1])
            if order is None:
                return
            value, axis = value.transpose(order), order.tolist().index(axis)
        elif axis == 0 and target.shape[0] == source.shape[0]:
            value = value.reshape(tuple(target.shape))
        else:
            return
        quantization = schema.QuantizationParametersT(
            scale=source.quantization.scale,
            zeroPoint=source.quantization.zeroPoint,
            quantizedDimension=axis,
        )
        moved = schema.TensorT(
            shape=target.shape, type=schema.TensorType.INT8, name=target.name + b"_integers",
            quantization=quantization,
        )  # fmt: skip
        self._graph.tensors.append(moved)
        self._fill(len(self._graph.tensors) - 1, value)
        place = self._graph.operators.index(operator)
        self._graph.operators[place] = self._dequantize(len(self._graph.tensors) - 1, operator.outputs[0])

    def _integers(self, value: NDArray[Any], target: int) -> NDArray[np.int8]:
        described = self._graph.tensors[target].quantization
        shape = [1] * value.ndim
        shape[described.quantizedDimension] = -1
        steps = np.rint(value / np.asarray(described.scale, np.float32).reshape(shape))
        integers: NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8)
        return integers

    def _dequantize(self, source: int, target: int) -> Any:
        codes = self._model.operatorCodes
        code = schema.BuiltinOperator.DEQUANTIZE
        known = [n for n, one in enumerate(codes) if _builtin(one) == code]
        if not known:
            codes.append(schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=3))
            known = [len(codes) - 1]
        return schema.OperatorT(opcodeIndex=known[0], inputs=[source], outputs=[target])

    def _fill(self, index: int, value: NDArray[Any]) -> None:
        data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self._model.buffers.append(schema.BufferT(data=data))
        self._graph.tensors[index].buffer = len(self._model.buffers) - 1

    def _constant(self, index: int) -> NDArray[Any] | None:
        tensor = self._graph.tensors[index]
        data = self._model.buffers[tensor.buffer].data
        if data is None or not len(data) or tensor.type not in _DTYPES:
            return None
        return np.asarray(data, np.uint8).view(_DTYPES[tensor.type]).reshape(tuple(tensor.shape))

    def _read(self) -> set[int]:
        return {index for operator in self._graph.operators for index in operator.inputs}

    def _all(self, *kinds: str) -> list[Any]:
        return [operator for operator in self._graph.operators if self._kind(operator) in kinds]

    def _kind(self, operator: Any) -> str:
        name: str = _NAMES[_builtin(self._model.operatorCodes[operator.opcodeIndex])]
        return name


def _builtin(code: Any) -> int:
    """Old files have the number in a field of one byte."""
    number: int = max(code.builtinCode, code.deprecatedBuiltinCode)
    return number
