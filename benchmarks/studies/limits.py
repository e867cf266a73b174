"""How fast this machine computes and moves memory: measured, in a process of its own.

Rates count two operations a multiply-add. Each is the best of several runs, since it stands for what is
possible.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from sam3i_edge.install_hint import install_hint
from studies.findings import Rate

# Rows, inputs and outputs of the product that is timed: large enough for full speed, small enough for tests.
_SIZE = (2048, 1024, 1024)
_COPIED = 256 << 20  # bytes, several times a last-level cache

FLOAT32, BFLOAT16, INT8, BANDWIDTH = "float32", "bfloat16", "int8", "memory"


def measure_rates(
    threads: int, size: tuple[int, int, int] = _SIZE, copied: int = _COPIED
) -> tuple[list[Rate], list[str]]:
    """Measures this machine's rates; meant to run in a fresh process, which it binds to some cores.

    Args:
        threads: cores to use.
        size: rows, inputs and outputs of the matrix product.
        copied: bytes of the array that is copied.

    Returns:
        The rates, and why others were not measured.
    """
    if hasattr(os, "sched_setaffinity"):
        # Before numpy is imported: its library counts the cores then.
        os.sched_setaffinity(0, set(islice(sorted(os.sched_getaffinity(0)), threads)))
    rates, left_out = [_memory(threads, copied)], []
    operations = 2 * size[0] * size[1] * size[2]
    try:
        rates += [
            Rate(name=name, value=operations / seconds / 1e9, unit="Gop/s", how=how)
            for name, seconds, how in _torch(threads, size)
        ]
    except ModuleNotFoundError as missing:
        left_out.append(f"bfloat16: {missing.name} is not installed: {install_hint('train')}")
        rates.append(
            Rate(name=FLOAT32, value=operations / _numpy(size) / 1e9, unit="Gop/s", how="numpy matmul")
        )
    try:
        rates += [
            Rate(name=name, value=operations / seconds / 1e9, unit="Gop/s", how=how)
            for name, seconds, how in _onnxruntime(threads, size)
        ]
    except ModuleNotFoundError as missing:
        left_out.append(f"int8: {missing.name} is not installed: {install_hint('export')}")
    return rates, left_out


def best_seconds(run: Callable[[], object], least: float = 0.3, most: int = 200) -> float:
    """The shortest of the runs that fit in `least` seconds, after one that warms up; at least 3."""
    run()
    best, started, count = float("inf"), time.perf_counter(), 0
    while count < 3 or (time.perf_counter() - started < least and count < most):
        begun = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begun)
        count += 1
    return best


def _memory(threads: int, copied: int) -> Rate:
    import numpy as np

    source = np.ones(copied // 8, np.float64)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        seconds = best_seconds(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))
    how = f"numpy copy of {copied >> 20} MiB, bytes read and written"
    return Rate(name=BANDWIDTH, value=2 * source.nbytes / seconds / 1e9, unit="GB/s", how=how)


def _numpy(size: tuple[int, int, int]) -> float:
    import numpy as np

    rows, inputs, outputs = size
    a, b = np.ones((rows, inputs), np.float32), np.ones((inputs, outputs), np.float32)
    return best_seconds(lambda: a @ b)


def _torch(threads: int, size: tuple[int, int, int]) -> list[tuple[str, float, str]]:
    import torch

    torch.set_num_threads(threads)
    rows, inputs, outputs = size
    found: list[tuple[str, float, str]] = []
    for name, dtype in ((FLOAT32, torch.float32), (BFLOAT16, torch.bfloat16)):
        x = torch.randn(rows, inputs).to(dtype)
        layer = torch.nn.Linear(inputs, outputs, bias=False).to(dtype)
        with torch.inference_mode():
            seconds = best_seconds(partial(layer, x))
        found.append((name, seconds, f"torch {torch.__version__}"))
    return found


def _onnxruntime(threads: int, size: tuple[int, int, int]) -> list[tuple[str, float, str]]:
    import numpy as np
    import onnx_ir as ir
    import onnxruntime

    rows, inputs, outputs = size
    rng = np.random.default_rng(0)
    found = []
    for name, operator, kind, given, weight in (
        (
            FLOAT32,
            "MatMul",
            ir.DataType.FLOAT,
            rng.normal(size=(rows, inputs)).astype(np.float32),
            rng.normal(size=(inputs, outputs)).astype(np.float32),
        ),
        (
            INT8,
            "MatMulInteger",
            ir.DataType.UINT8,
            rng.integers(0, 256, (rows, inputs)).astype(np.uint8),
            rng.integers(-64, 64, (inputs, outputs)).astype(np.int8),
        ),
    ):
        x = ir.Value(name="x", shape=ir.Shape((rows, inputs)), type=ir.TensorType(kind))
        w = ir.Value(name="w", const_value=ir.Tensor(weight, name="w"))
        w.shape, w.dtype = w.const_value.shape, w.const_value.dtype  # type: ignore[union-attr,assignment]
        node = ir.Node("", operator, [x, w])
        y = node.outputs[0]
        y.name, y.shape = "y", ir.Shape((rows, outputs))
        y.dtype = ir.DataType.FLOAT if name == FLOAT32 else ir.DataType.INT32
        graph = ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports={"": 18}, name="product")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            ir.to_proto(ir.Model(graph, ir_version=9)).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )
        seconds = best_seconds(partial(session.run, ["y"], {"x": given}))
        found.append((name, seconds, f"onnxruntime {onnxruntime.__version__} {operator}"))
    return found
