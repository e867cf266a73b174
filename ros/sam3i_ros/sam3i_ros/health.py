"""What became of the images, as diagnostics tell it."""

from __future__ import annotations

import time
from collections import deque

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from sam3i_edge import Segmenter
from sam3i_ros.frames import Newest

_LATENCIES = 100  # images over which the median is taken


class Health:
    """Counts since `activate`.

    Attributes:
        segmented: images that were answered.
        refused: images that could not be.
        problem: why the newest image was refused; "" when it was answered.
    """

    def __init__(self) -> None:
        self.segmented = self.refused = 0
        self.problem = ""
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)

    def answer(self, came: float) -> None:
        """Counts an image that came at `came`, by `time.monotonic`, and is answered now."""
        self.segmented += 1
        self.problem = ""
        self._latencies.append((time.monotonic() - came) * 1e3)

    def refuse(self, problem: str) -> None:
        """Counts an image that could not be used."""
        self.refused += 1
        self.problem = problem

    def values(self, frames: Newest, segmenter: Segmenter | None, instructions: str) -> list[KeyValue]:
        """Counts, milliseconds from an image's arrival to its answer, and what runs."""
        found: dict[str, object] = {
            "received": frames.received,
            "dropped": frames.dropped,
            "segmented": self.segmented,
            "refused": self.refused,
            "instructions": instructions,
        }
        latencies = sorted(self._latencies)
        if latencies:
            found["latency_ms"] = f"{latencies[len(latencies) // 2]:.1f}"
            found["latency_max_ms"] = f"{latencies[-1]:.1f}"
        if segmenter is not None:
            info = segmenter.info
            found |= {name: getattr(info, name) for name in ("model", "device", "runtime", "precision")}
        return [KeyValue(key=name, value=str(value)) for name, value in found.items()]

    def condition(self, frames: Newest, topic: str, patience: float) -> tuple[bytes, str]:
        """Level and message while images are waited for at `topic`."""
        silent = time.monotonic() - frames.last
        if silent > patience:
            return DiagnosticStatus.WARN, f"no image at {topic} for {silent:.1f} s: is the camera running?"
        if self.problem:
            return DiagnosticStatus.ERROR, self.problem
        return DiagnosticStatus.OK, "segmenting"
