"""Trackers that predict motion: those of the library `trackers` (Apache-2.0), on a result's boxes.

ByteTrack (Zhang et al. 2022, arXiv:2110.06864) and OC-SORT (Cao et al. 2023, arXiv:2203.14360): a Kalman
filter a track says where its box will be, so that things that cross keep their ids. Masks are not compared.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.install_hint import install_hint
from sam3i_edge.result import Result

MotionName = Literal["bytetrack", "ocsort"]
_MEMORY: Final = 30  # frames, as `tracking.Tracker` keeps a track


class MotionTracker:
    """Gives the instances of one frame after the other their ids, from 1. Not thread-safe."""

    def __init__(self, name: MotionName) -> None:
        """Starts without tracks.

        Args:
            name: "bytetrack" or "ocsort".

        Raises:
            ImportError: the library is not installed.
        """
        try:
            from trackers import ByteTrackTracker, OCSORTTracker
        except ImportError as error:
            raise ImportError(
                f"tracker={name!r} needs the library trackers: {install_hint('track')}"
            ) from error
        self._tracker: ByteTrackTracker | OCSORTTracker
        # Whatever passed the model's threshold may begin a track, and one sighting is enough for an id.
        if name == "bytetrack":
            self._tracker = ByteTrackTracker(
                lost_track_buffer=_MEMORY, track_activation_threshold=0, minimum_consecutive_frames=1
            )
        else:
            self._tracker = OCSORTTracker(
                lost_track_buffer=_MEMORY, high_conf_det_threshold=0, minimum_consecutive_frames=1
            )
        self._given = 0  # ids of the tracks before the last reset
        self._highest = 0

    def reset(self) -> None:
        """Forgets every track. Their ids do not come again."""
        self._given = self._highest
        self._tracker.reset()

    def update(self, result: Result) -> NDArray[np.int64]:
        """Takes the next frame's instances and gives their ids, [N] int64; 0 in the first frame of a track.

        The library gives a track its id when it is seen a second time.
        """
        import supervision

        detections = supervision.Detections(
            xyxy=result.boxes.astype(np.float32).reshape(-1, 4),
            confidence=result.scores.astype(np.float32),
            data={"row": np.arange(len(result))},
        )
        found = self._tracker.update(detections)
        numbers = np.zeros(len(result), np.int64)
        if len(found) and found.tracker_id is not None:
            own = np.asarray(found.tracker_id, np.int64)
            numbers[np.asarray(found.data["row"], np.int64)] = np.where(own < 0, 0, own + 1 + self._given)
            self._highest = max(self._highest, int(numbers.max()))
        return numbers
