"""Percentiles of samples, and ratios of medians with the noise of the samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.measure.schema import Latency, Ratio

RESAMPLES = 2000
# Neighbouring queries share the machine's state, so whole runs of them are drawn again.
BLOCK = 8
SLOWED = 1.1


def latency(samples_ms: Sequence[float]) -> Latency:
    """Sums up the samples of one step, kept to a microsecond.

    Raises:
        ValueError: there is none.
    """
    if not len(samples_ms):
        raise ValueError("no time was measured: give at least one sample")
    values = np.asarray(samples_ms, np.float64)
    p50, p90, p99 = (float(np.percentile(values, q)) for q in (50, 90, 99))
    mean = float(values.mean())
    return Latency(
        count=len(values),
        p50=p50,
        p90=p90,
        p99=p99,
        mean=mean,
        variation=float(values.std()) / mean if mean > 0 else 0.0,
        samples=tuple(round(float(value), 3) for value in values),
    )


def speedup(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Ratio:
    """How many times smaller the median of `after` is, with a 95 % interval.

    Moving-block bootstrap (Künsch 1989): both series are drawn again from overlapping runs of 8 samples
    (a quarter of a short series), 2,000 times, and the interval is the middle 95 % of the quotients of
    medians.

    Raises:
        ValueError: a series is empty, or a median is not above 0.
    """
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if not len(first) or not len(second) or not np.median(first) > 0 or not np.median(second) > 0:
        raise ValueError("a ratio of medians needs two series of times above 0")
    rng = np.random.default_rng(seed)
    quotients = _medians(first, rng) / _medians(second, rng)
    low, high = (float(value) for value in np.percentile(quotients, (2.5, 97.5)))
    return Ratio(value=float(np.median(first) / np.median(second)), low=low, high=high)


def slowed(samples_ms: Sequence[float]) -> bool:
    """Whether the last third's median is more than 10 % above the first third's: a machine that heats up."""
    third = len(samples_ms) // 3
    if not third:
        return False
    return bool(np.median(samples_ms[-third:]) > SLOWED * np.median(samples_ms[:third]))


def _medians(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    size = max(1, min(BLOCK, len(values) // 4))  # fewer samples have shorter runs, or all would be equal
    blocks = -(-len(values) // size)
    starts = rng.integers(0, len(values) - size + 1, (RESAMPLES, blocks, 1))
    drawn = values[(starts + np.arange(size)).reshape(RESAMPLES, -1)[:, : len(values)]]
    return np.asarray(np.median(drawn, axis=1))
