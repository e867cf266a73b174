"""How cost grows with the side of the square picture that a model takes: its float graphs, exported at each.

A bundle has one side. Its float weights fit every side that the model allows, and what they cost there does
not depend on what they were trained for; what they find does, so only times are taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.measure.worker import hold_to
from studies.findings import Curve, Point

if TYPE_CHECKING:
    from sam3i_edge.model.config import ModelConfig

GRAPHS = ("image_encoder", "detector")
_CONVOLUTIONAL = (128, 224, 256, 320, 448)
_WINDOWS = 3  # of the ViT along a side, at most: the official size
_DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}


def sides_curves(
    name: str, weights: Path, threads: int, *, turns: int, tell: Callable[[str], None]
) -> tuple[Curve, ...]:
    """Measures the float image encoder and detector at every side, by ONNX Runtime on the processor.

    Args:
        name: of the model, for titles.
        weights: folder of its float weights.
        threads: to use.
        turns: how often a point is measured, at least 1.
        tell: called with a word on each side.

    Raises:
        ModuleNotFoundError: torch or what exports is not installed.
        ExportError: the process of an export or of a measurement died.
    """
    from sam3i_edge.export.isolated import call
    from sam3i_edge.export.onnx.graph_file import export_graph
    from sam3i_edge.model.weights import read_config

    config = read_config(weights)
    found: dict[str, list[Point]] = {graph: [] for graph in GRAPHS}
    for side in sides_of(config):
        tell(f"{name}: {side} px")
        for graph in GRAPHS:
            with TemporaryDirectory(prefix="sam3i-edge-") as folder:
                sized = replace(config, image_size=side)
                call(export_graph, weights, sized, Path(folder), 0, graph, {}, False)
                taken, _ = call(times_of, Path(folder) / f"{graph}.onnx", threads, turns)
            p50, p90 = (float(np.percentile(taken, share)) for share in (50, 90))
            found[graph].append(Point(x=side, p50=p50, p90=p90))
    return tuple(
        Curve(title=f"{name}: {graph} by side, fp32", x="px", y="ms", points=tuple(points))
        for graph, points in found.items()
    )


def sides_of(config: ModelConfig) -> Sequence[int]:
    """The sides to measure: the official ones of a ViT, some of the many of a convolutional backbone."""
    if config.backbone in ("conv", "efficientnet"):
        return _CONVOLUTIONAL
    return [config.window_size * config.patch_size * count for count in range(1, _WINDOWS + 1)]


def random_inputs(session: Any) -> dict[str, NDArray[Any]]:
    """Values for an ONNX Runtime session of one of our graphs with static shapes."""
    rng = np.random.default_rng(0)
    given: dict[str, NDArray[Any]] = {}
    for slot in session.get_inputs():
        if slot.name == "level":
            value: NDArray[Any] = np.ones(slot.shape)
        elif slot.name == "input_ids":
            value = rng.integers(1, 100, slot.shape)
        else:
            value = rng.normal(size=slot.shape)
        given[slot.name] = value.astype(_DTYPES[slot.type])
    return given


def times_of(graph: Path, threads: int, turns: int) -> list[float]:
    """Milliseconds of each run of an ONNX graph on random values, after one that warms up."""
    hold_to(threads)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    given, taken = random_inputs(session), []
    for _ in range(turns + 1):
        started = time.perf_counter()
        session.run(None, given)
        taken.append(1e3 * (time.perf_counter() - started))
    return taken[1:]
