"""How long each step of one call took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

# What a Result's timings_ms holds, in this order.
STEPS = ("preprocess", "encode_image", "encode_text", "encode_boxes", "detect", "postprocess", "total")

# Which of them running a graph is; a text encoder goes by the part before its level.
_STEP_OF = {
    "image_encoder": "encode_image",
    "text_encoder": "encode_text",
    "box_encoder": "encode_boxes",
    "detector": "detect",
}


def step_of(graph: str) -> str:
    """The step that running a graph is."""
    return _STEP_OF[graph.partition(".")[0]]


class Clock:
    """Milliseconds by step, from its making; a step that did not run has 0."""

    def __init__(self) -> None:
        self._spent = dict.fromkeys(STEPS, 0.0)
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Adds the time spent in the block to a step, unless the block raises."""
        start = time.perf_counter()
        yield
        self._spent[name] += 1e3 * (time.perf_counter() - start)

    def timings(self) -> dict[str, float]:
        """The steps so far, and the whole since the clock was made."""
        return {**self._spent, "total": 1e3 * (time.perf_counter() - self._start)}
