"""Each graph's operations and bytes beside what this machine can do.

Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
architectures", Communications of the ACM 52 (2009): a kernel takes at least the greater of operations / rate
and bytes / bandwidth.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam3i_edge.install_hint import install_hint
from sam3i_edge.measure.plan import Planned
from sam3i_edge.measure.schema import Row
from studies.findings import GraphLimit, Rate, Roofline
from studies.limits import BANDWIDTH, FLOAT32, INT8, measure_rates

if TYPE_CHECKING:
    import onnx_ir as ir

_STEP = {"image_encoder": "encode_image", "text_encoder": "encode_text", "detector": "detect"}


def roofline(planned: Sequence[Planned], rows: Sequence[Row], threads: int) -> Roofline:
    """Measures the machine and sets every ONNX graph that ran on its processor beside it.

    Raises:
        ExportError: the process that measures the machine died.
    """
    from sam3i_edge.export.isolated import call

    (rates, left_out), _ = call(measure_rates, threads)
    graphs: list[GraphLimit] = []
    for row in planned:
        paths = row.bundle.graphs(row.variant)
        if row.device != "cpu" or row.runtime != "onnxruntime":
            left_out.append(
                f"{row.name}: operations are counted in graphs that ONNX Runtime runs on a processor"
            )
            continue
        for graph, path in paths.items():
            step = _STEP.get(graph.partition(".")[0])
            if step is None:
                continue
            try:
                work = graph_work(path)
            except ModuleNotFoundError as missing:
                left_out.append(f"{row.name}: {missing.name} is not installed: {install_hint('export')}")
                break
            except ValueError as error:
                left_out.append(f"{row.name} {graph}: {error}")
                continue
            achieved = _achieved(row, rows, graph, step)
            graphs.append(_limit(row.name, graph, work, rates, achieved))
    return Roofline(rates=tuple(rates), graphs=tuple(graphs), left_out=tuple(left_out))


def graph_work(path: Path) -> tuple[int, int, float, int]:
    """Counts an ONNX graph with static shapes.

    Returns:
        Operations of products with weights, operations of products of activations (two a multiply-add),
        share of the former in integer kernels of the graph as ONNX Runtime optimises it, and bytes of
        weights, inputs and outputs.

    Raises:
        ModuleNotFoundError: onnx-ir is not installed.
        ValueError: a shape is not static.
    """
    import onnx_ir as ir

    from sam3i_edge.export.onnx.census import census

    model = ir.load(path)
    weights = census(path)
    constants = (value.const_value for value in model.graph.initializers.values())
    size = sum(int(constant.nbytes) for constant in constants if constant is not None)
    for value in (*model.graph.inputs, *model.graph.outputs):
        size += int(prod(_sides(value)) * (value.dtype.itemsize if value.dtype is not None else 4))
    return 2 * weights.total, 2 * _attention(model), weights.share, size


def _attention(model: ir.Model) -> int:
    """Multiply-adds of matrix products whose operands both come from what the graph is given."""
    # `level` only chooses weights.
    dynamic = {value.name for value in model.graph.inputs if value.name != "level"}
    found = 0
    for node in model.graph:
        taken = [value.name for value in node.inputs if value is not None]
        if node.op_type in ("MatMul", "Gemm") and dynamic.issuperset(taken[:2]):
            found += _product(node)
        if dynamic.intersection(taken):
            dynamic.update(value.name for value in node.outputs)
    return found


def _product(node: ir.Node) -> int:
    taken = node.inputs[0]
    return prod(_sides(node.outputs[0])) * (_sides(taken)[-1] if taken is not None else 0)


def _sides(value: ir.Value | None) -> list[int]:
    if value is None or value.shape is None:
        raise ValueError(f"{value.name if value is not None else 'an input'} has no static shape")
    return [int(side) for side in value.shape.numpy()]


def _limit(
    variant: str,
    graph: str,
    work: tuple[int, int, float, int],
    rates: Sequence[Rate],
    achieved: float | None,
) -> GraphLimit:
    linear, attention, integer, size = work
    best = {name: max(rate.value for rate in rates if rate.name == name) for name in {r.name for r in rates}}
    integers = linear * integer if INT8 in best else 0.0
    seconds = (linear - integers + attention) / (best[FLOAT32] * 1e9)
    if integers:
        seconds += integers / (best[INT8] * 1e9)
    return GraphLimit(
        variant=variant,
        graph=graph,
        operations=linear,
        attention=attention,
        integer=integer,
        bytes=size,
        possible_ms=1e3 * max(seconds, size / (best[BANDWIDTH] * 1e9)),
        achieved_ms=achieved,
    )


def _achieved(planned: Planned, rows: Sequence[Row], graph: str, step: str) -> float | None:
    level = graph.partition(".")[2]
    medians = [
        row.latency[step].p50
        for row in rows
        if (row.model, row.variant, row.device) == (planned.model, planned.variant, "cpu")
        and level in ("", row.level) and step in row.latency
    ]  # fmt: skip
    return float(np.median(medians)) if medians else None
