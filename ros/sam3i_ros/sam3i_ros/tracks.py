"""Ids of instances from image to image, of several instructions at once."""

from __future__ import annotations

from collections.abc import Sequence

from sam3i_edge import Result
from sam3i_edge.tracking import Tracker
from sam3i_ros.parameters import Question


class Tracks:
    """A tracker for each instruction. Another question or image size begins anew; ids do not come again."""

    def __init__(self) -> None:
        self._trackers: list[Tracker] = []
        self._followed: object = None

    def reset(self) -> None:
        """Begins anew with the next image. May be called from other threads."""
        self._followed = None

    def ids(self, question: Question, results: Sequence[Result]) -> list[list[str]]:
        """For each result the id of each instance, "the instruction's number.the track's number"."""
        follows = question.instructions, question.level, results[0].image_size
        if self._followed != follows:
            for tracker in self._trackers:
                tracker.reset()
            self._followed = follows
        self._trackers += [Tracker() for _ in results[len(self._trackers) :]]
        numbers = [tracker.update(result) for tracker, result in zip(self._trackers, results, strict=False)]
        return [[f"{place}.{one}" for one in found] for place, found in enumerate(numbers, start=1)]
