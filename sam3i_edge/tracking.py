"""Which instance of a frame is which of the frames before.

The rule: an instance continues the track whose last mask it overlaps most. Overlap is the intersection over
union (IoU) of the masks on the detector's grid; pairs are taken from the greatest overlap down, each instance
and each track once, as long as it is at least `least_iou`. What is left, thin or fast things whose masks no
longer meet, is paired in the same way by the IoU of the boxes. An instance that continues nothing starts a
track, and a track that is not seen for `memory` frames is forgotten. Nothing is predicted and no appearance
is compared: things that swap places between two frames swap their ids. `motion_tracking` has trackers that
predict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.masks.iou import box_iou, mask_iou
from sam3i_edge.motion_tracking import MotionName, MotionTracker
from sam3i_edge.result import Result

TrackerName: TypeAlias = Literal["iou"] | MotionName
TRACKERS: Final[tuple[TrackerName, ...]] = ("iou", "bytetrack", "ocsort")

# Tracks that are kept at most: a mask of sam3i takes 83 kB.
_MOST_TRACKS = 256


@dataclass(slots=True)
class _Track:
    number: int
    mask: NDArray[np.bool_]  # [M * M]
    box: NDArray[np.float32]  # [4]
    missed: int  # frames since it was seen


class Tracker:
    """Gives the instances of one frame after the other their ids, from 1. Not thread-safe."""

    def __init__(self, *, least_iou: float = 0.3, memory: int = 30) -> None:
        """Starts without tracks.

        Args:
            least_iou: overlap that continues a track, above 0 and at most 1.
            memory: frames after which a track that is not seen is forgotten, at least 0.

        Raises:
            ValueError: one of them is out of range.
        """
        if not 0 < least_iou <= 1:
            raise ValueError(f"least_iou must be above 0 and at most 1, got {least_iou}")
        if memory < 0:
            raise ValueError(f"memory must be at least 0 frames, got {memory}")
        self._least_iou, self._memory = least_iou, memory
        self._tracks: list[_Track] = []
        self._last = 0

    def reset(self) -> None:
        """Forgets every track. Their ids do not come again."""
        self._tracks = []

    def update(self, result: Result) -> NDArray[np.int64]:
        """Takes the next frame's instances and gives their ids, [N] int64.

        Raises:
            ValueError: the result holds run lengths instead of logits, or logits of another size than before.
        """
        if result.mask_logits is None:
            raise ValueError("tracking needs mask_logits, and this Result was read from JSON")
        masks = (result.mask_logits > 0).reshape(len(result), math.prod(result.mask_logits.shape[1:]))
        known = self._tracks
        if known and known[0].mask.size != masks.shape[1] and len(result):
            raise ValueError(
                f"masks of {masks.shape[1]} points cannot be compared with {known[0].mask.size}: reset first"
            )
        numbers = np.zeros(len(result), dtype=np.int64)
        if known and len(result):
            by_mask = mask_iou(masks, np.stack([track.mask for track in known]))
            by_box = box_iou(result.boxes, np.stack([track.box for track in known]))
            rows = self._pair(by_mask)
            rows |= self._pair(by_box, rows)
            for row, column in rows.items():
                numbers[row] = known[column].number
        for track in known:
            track.missed += 1
        seen = {track.number: track for track in known}
        for row in range(len(result)):
            if not numbers[row]:
                self._last += 1
                numbers[row] = self._last
            seen[int(numbers[row])] = _Track(
                int(numbers[row]), masks[row].copy(), result.boxes[row].copy(), 0
            )
        alive = [track for track in seen.values() if track.missed <= self._memory]
        self._tracks = sorted(alive, key=lambda track: track.missed)[:_MOST_TRACKS]
        return numbers

    def _pair(self, overlap: NDArray[np.float64], taken: dict[int, int] | None = None) -> dict[int, int]:
        """Pairs of row and column from the greatest overlap down, beyond those that are taken."""
        taken = taken or {}
        free = overlap.copy()
        free[list(taken), :] = 0
        free[:, list(taken.values())] = 0
        pairs: dict[int, int] = {}
        while free.size:
            row, column = np.unravel_index(free.argmax(), free.shape)
            if free[row, column] < self._least_iou:
                break
            pairs[int(row)] = int(column)
            free[row, :] = 0
            free[:, column] = 0
        return pairs


def open_tracker(name: TrackerName) -> Tracker | MotionTracker:
    """A tracker by name: "iou" is `Tracker`, the others are `MotionTracker`s.

    Raises:
        ValueError: the name is unknown.
        ImportError: its library is not installed.
    """
    if name not in TRACKERS:
        raise ValueError(f"unknown tracker {name!r}; choose from {', '.join(TRACKERS)}")
    return Tracker() if name == "iou" else MotionTracker(name)
