"""What the studies find: limits of the machine, curves, peers; and `findings.json`, which holds them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sam3i_edge.devices.machine import Machine
from sam3i_edge.measure.schema import Conditions, Ratio


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rate(_Part):
    """A measured limit of the machine: `unit` is "Gop/s" (two operations a multiply-add) or "GB/s"."""

    name: str
    value: float
    unit: Literal["Gop/s", "GB/s"]
    how: str


class GraphLimit(_Part):
    """One graph beside what the machine could do.

    Attributes:
        variant, graph: which.
        operations: two a multiply-add, of products with weights; attention: of products of activations.
        integer: share of the former in integer kernels of the optimised graph.
        bytes: weights, inputs and outputs, each moved once.
        possible_ms: the greater of operations / rate and bytes / bandwidth.
        achieved_ms: median of the graph's step, or None where no row timed it.
    """

    variant: str
    graph: str
    operations: int
    attention: int
    integer: Annotated[float, Field(ge=0, le=1)]
    bytes: int
    possible_ms: float
    achieved_ms: float | None


class Roofline(_Part):
    """Measured limits, each graph beside them, and what was left out with the reason."""

    rates: tuple[Rate, ...]
    graphs: tuple[GraphLimit, ...]
    left_out: tuple[str, ...] = ()


class Point(_Part):
    """One point of a curve: median and p90 in the curve's unit."""

    x: float
    p50: float
    p90: float


class Curve(_Part):
    """How a cost grows."""

    title: str
    x: str
    y: str
    points: tuple[Point, ...]


class Peer(_Part):
    """Another way to do the same, timed in turn with ours.

    Attributes:
        task: what is done; peer, ours: the two ways, in words.
        peer_ms, ours_ms: medians.
        speedup: quotient of medians with its interval.
        agreement: how the two answers compare, in words.
        peer_peak_bytes, ours_peak_bytes: most memory of each one's process, or None where it has no own.
    """

    task: str
    peer: str
    ours: str
    peer_ms: float
    ours_ms: float
    speedup: Ratio
    agreement: str
    peer_peak_bytes: int | None = None
    ours_peak_bytes: int | None = None


class Findings(_Part):
    """The content of `findings.json`; rows and their settings are in `results.json` beside it."""

    machine: Machine
    versions: dict[str, str]
    commit: str | None
    threads: int
    started: Conditions
    roofline: Roofline | None = None
    curves: tuple[Curve, ...] = ()
    peers: tuple[Peer, ...] = ()
