"""Frames of what OpenCV opens: a camera, a video's file, an address or a pipeline of GStreamer."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import StreamError

_log = logging.getLogger(__name__)

# Containers tell about how many frames they hold: a file at an address has ended when most of them came.
_WHOLE = 0.9
_PAUSE = 0.5  # seconds between two tries to open what was lost


def silence_opencv() -> None:
    """Keeps OpenCV and its FFmpeg from writing to stderr, in this process, until it ends."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Video(Iterator[NDArray[np.uint8]]):
    """Frames [H, W, 3] uint8 RGB, opened with the first. Read in one thread; `stop` may come from others.

    A source that stops has ended when it is a file, and was lost when it is live. An address may be either:
    what tells how many frames it holds is a file.

    Attributes:
        reconnected: how often a lost source came back.
        count: frames that came since it was opened last.
    """

    def __init__(self, source: int | str, name: str, *, live: bool, reconnect: float = 0.0) -> None:
        """Opens nothing yet.

        Args:
            source: as `cv2.VideoCapture` takes it.
            name: for messages.
            live: a camera, an address or a pipeline, not a file here.
            reconnect: seconds for which a lost source is opened again and again.
        """
        self.name, self.reconnected, self.count = name, 0, 0
        self._source, self._live, self._reconnect = source, live, reconnect
        self._capture: Any = None
        self._stopped = threading.Event()

    def __next__(self) -> NDArray[np.uint8]:
        """The next frame.

        Raises:
            StopIteration: a file has ended, or the video was stopped.
            StreamError: it cannot be opened, gives no frame, or was lost.
        """
        if self._capture is None and not self._open():
            raise StreamError(
                f"{self.name} cannot be opened: is it there, whole, free, and of a kind that OpenCV reads?"
            )
        frame = self._read()
        if frame is None:
            if not self.count:
                raise StreamError(f"{self.name} was opened and gives no frame: is it a video, and whole?")
            if self._stopped.is_set() or self._has_ended():
                raise StopIteration
            frame = self._open_again()
        return frame

    def stop(self) -> None:
        """Ends the waiting for a lost source."""
        self._stopped.set()

    def close(self) -> None:
        """Lets go of the source."""
        self.stop()
        if self._capture is not None:
            self._capture.release()

    def _open(self) -> bool:
        import cv2

        self._capture, self.count = cv2.VideoCapture(self._source), 0
        return bool(self._capture.isOpened())

    def _read(self) -> NDArray[np.uint8] | None:
        import cv2

        more, frame = self._capture.read()
        if not more:
            return None
        self.count += 1
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    @property
    def length(self) -> int:
        """Frames that the opened source says it holds; 0 where it says nothing, as what is live."""
        import cv2

        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    @property
    def rate(self) -> float | None:
        """Frames a second, as the opened source says; None where it says nothing."""
        import cv2

        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        return rate if 0 < rate < 1_000 else None

    def _has_ended(self) -> bool:
        return not self._live or 0 < _WHOLE * self.length <= self.count

    def _open_again(self) -> NDArray[np.uint8]:
        length, count = self.length, self.count
        lost = f"{self.name} stopped after {count} {f'of {length} ' if length else ''}frames"
        deadline = time.monotonic() + (0 if length else self._reconnect)  # a file would start anew
        while time.monotonic() < deadline:
            _log.warning("%s: opening it again", lost)
            self._capture.release()
            if self._open() and (frame := self._read()) is not None:
                self.reconnected += 1
                return frame
            if self._stopped.wait(_PAUSE):
                raise StopIteration
        if self._reconnect and not length:
            raise StreamError(
                f"{lost} and did not come back within {self._reconnect:g} s: is it still connected?"
            )
        hint = "" if length else ", or pass reconnect= seconds"
        raise StreamError(f"{lost}: is it still connected? Open it again{hint}")
