"""Two ways to do the same, timed in turn: what disturbs one disturbs the other."""

from __future__ import annotations

import time
from collections.abc import Callable


def in_turn(
    first: Callable[[], object], second: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of two functions called in turn, `rounds` times after one that warms up."""
    taken: tuple[list[float], list[float]] = [], []
    for number in range(rounds + 1):
        for times, call in zip(taken, (first, second), strict=True):
            started = time.perf_counter()
            call()
            if number:
                times.append(1e3 * (time.perf_counter() - started))
    return taken
