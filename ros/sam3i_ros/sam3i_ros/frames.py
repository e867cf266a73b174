"""The newest frame, handed from the thread that receives to the one that segments."""

from __future__ import annotations

import threading
import time
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """Keeps one frame; an older one that was not taken is dropped and counted.

    Attributes:
        received: frames that came.
        dropped: frames that a newer one replaced.
        last: when the last one came, by `time.monotonic`; before the first, when this was made.
    """

    def __init__(self) -> None:
        self.received = self.dropped = 0
        self.last = time.monotonic()
        self._frame: tuple[T, float] | None = None
        self._changed = threading.Condition()
        self._closed = False

    def put(self, frame: T) -> None:
        """Takes the place of the frame that waits."""
        with self._changed:
            self.received += 1
            self.dropped += self._frame is not None
            self.last = time.monotonic()
            self._frame = frame, self.last
            self._changed.notify_all()

    def take(self) -> tuple[T, float] | None:
        """Waits for a frame and gives it with the time at which it came; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed)
            if self._closed:
                return None
            frame, self._frame = self._frame, None
            return frame

    def wait_closed(self, seconds: float) -> bool:
        """Waits so long, or until it is closed, and says whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, max(0.0, seconds))

    def close(self) -> None:
        """Ends the waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
