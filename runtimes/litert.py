"""LiteRT on the CPU: what Android runs, on Linux and macOS through its Python package.

LiteRT takes int64 inputs as int32; this runtime takes int64 as the others do. A .tflite holds one graph under
one signature, whose names are the graph's.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from sam3i_edge.devices.machine import usable_cores
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable

_WIDE = {np.dtype(np.int64): np.dtype(np.int32)}


class LiteRTRuntime:
    """One graph in one interpreter. Not thread-safe by contract, see `Runtime`."""

    def __init__(self, interpreter: Interpreter, name: str) -> None:
        self._name = name
        self._signature: Any = interpreter.get_signature_runner()
        self._inputs = {
            key: (np.dtype(one["dtype"]), tuple(int(side) for side in one["shape"]))
            for key, one in self._signature.get_input_details().items()
        }

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph once; see `Runtime.run`."""
        if self._signature is None:
            raise RuntimeUnavailable(f"{self._name} was closed: open it again to run it")
        if inputs.keys() != self._inputs.keys():
            raise ValueError(
                f"{self._name} wants the inputs {', '.join(self._inputs)}, got {', '.join(inputs) or 'none'}"
            )
        given = {}
        for name, (dtype, shape) in self._inputs.items():
            value = inputs[name]
            if value.shape != shape or _WIDE.get(value.dtype, value.dtype) != dtype:
                raise ValueError(
                    f"{self._name}: input {name!r} is {value.dtype} {list(value.shape)}, "
                    f"want {dtype} {list(shape)}"
                )
            given[name] = np.ascontiguousarray(value, dtype)
            if value.dtype != dtype and not np.array_equal(given[name], value):
                raise ValueError(
                    f"{self._name}: input {name!r} is {value.dtype} {list(value.shape)} with {value.max()}, "
                    f"which {dtype} does not hold"
                )
        try:
            outputs: dict[str, NDArray[Any]] = self._signature(**given)
        except RuntimeError as error:
            raise RuntimeUnavailable(f"{self._name} failed in LiteRT: {_one_line(error)}") from error
        return outputs

    def close(self) -> None:
        """Frees the interpreter."""
        self._signature = None


def open(
    artifact: Path, device: str, threads: int | None = None, *, low_memory: bool = False
) -> LiteRTRuntime:
    """Opens a .tflite; see `sam3i_edge.runtimes.open_runtime`.

    LiteRT maps the file and packs its weights at the first run, so `low_memory` changes nothing.
    """
    del low_memory
    _check(device)
    if not artifact.is_file():
        raise ArtifactError(f"the graph {artifact} does not exist: copy or export the bundle again")
    try:
        interpreter = Interpreter(str(artifact), num_threads=threads or usable_cores())
        return LiteRTRuntime(interpreter, artifact.name)
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"LiteRT cannot open {artifact}: {_one_line(error)}") from error


@functools.cache
def probe(device: str) -> None:
    """Runs a graph of one addition; see `sam3i_edge.runtimes.probe`."""
    _check(device)
    try:
        runtime = LiteRTRuntime(Interpreter(model_content=_add_graph(), num_threads=1), "a tiny graph")
        (two,) = runtime.run({"x": np.ones(1, np.float32)})["y"].tolist()
    except (ValueError, RuntimeError) as error:
        raise RuntimeUnavailable(f"LiteRT is installed and does not run: {_one_line(error)}") from error
    if two != 2.0:
        raise RuntimeUnavailable(f"LiteRT computes 1 + 1 = {two}")


def _add_graph() -> bytes:
    """The file y = x + x for x float32 [1]."""
    add = schema.BuiltinOperator.ADD
    tensors = [
        schema.TensorT(shape=[1], type=schema.TensorType.FLOAT32, buffer=0, name=n) for n in ("x", "y")
    ]
    operator = schema.OperatorT(
        opcodeIndex=0, inputs=[0, 0], outputs=[1], builtinOptionsType=schema.BuiltinOptions.AddOptions,
        builtinOptions=schema.AddOptionsT(),
    )  # fmt: skip
    signature = schema.SignatureDefT(
        inputs=[schema.TensorMapT(name="x", tensorIndex=0)],
        outputs=[schema.TensorMapT(name="y", tensorIndex=1)],
        signatureKey="serving_default",
    )
    model = schema.ModelT(
        version=3,
        operatorCodes=[schema.OperatorCodeT(deprecatedBuiltinCode=add, builtinCode=add, version=1)],
        subgraphs=[schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[1], operators=[operator])],
        buffers=[schema.BufferT()],
        signatureDefs=[signature],
    )
    return _packed(model)


def _packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _check(device: str) -> None:
    if device != "cpu":
        raise RuntimeUnavailable(f"LiteRT runs on cpu here, not on {device!r}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
