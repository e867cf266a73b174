"""Following the instances of frame after frame: their ids, and their scores made steady.

Smoothing is an exponential moving average over a track: with a weight `w` the score that is told is
`(1 - w)` times the frame's own and `w` times what was told of the track before; the first is the frame's
own. So w = 0.5 forgets half with each frame that sees the thing. Frames that do not see it change nothing, a
track that was not seen for 30 frames begins anew, and what has no id yet keeps its own score. Instances are
neither added nor dropped: the threshold was applied to the frame's own scores.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from sam3i_edge.result import Result
from sam3i_edge.tracking import TrackerName, open_tracker

_MEMORY: Final = 30  # frames, as the trackers keep a track


class Follower:
    """Gives one result after the other its track ids. Not thread-safe."""

    def __init__(self, tracker: TrackerName = "iou", smoothing: float = 0.0) -> None:
        """Starts without tracks.

        Args:
            tracker: see `Segmenter.stream`.
            smoothing: weight of what was told before, 0 to below 1; 0 leaves the scores as they are.

        Raises:
            ImportError: the tracker's library is not installed.
            ValueError: the tracker is unknown, or the weight out of range.
        """
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and below 1, got {smoothing}")
        self._tracker, self._weight = open_tracker(tracker), smoothing
        self._told: dict[int, tuple[float, int]] = {}  # track -> score, and frames since it was seen

    def reset(self) -> None:
        """Forgets every track. Their ids do not come again."""
        self._tracker.reset()
        self._told = {}

    def follow(self, result: Result) -> Result:
        """The next frame's result with ids, and with steady scores, best first.

        Raises:
            ValueError: as of `Tracker.update`.
        """
        numbers = self._tracker.update(result)
        if not self._weight:
            return replace(result, track_ids=numbers)
        told = {n: (score, missed + 1) for n, (score, missed) in self._told.items() if missed < _MEMORY}
        scores = result.scores.copy()
        for row, number in enumerate(numbers.tolist()):
            if number:
                before = told.get(number, (float(scores[row]), 0))[0]
                scores[row] = (1 - self._weight) * scores[row] + self._weight * before
                told[number] = (float(scores[row]), 0)
        self._told = told
        steady = replace(result, track_ids=numbers, scores=scores)
        return steady[np.argsort(-scores, kind="stable")]
