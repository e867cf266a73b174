"""A camera that is none, a video of twelve frames, and the threads that read them."""

import threading
import time

import cv2
import numpy as np
import pytest


@pytest.fixture
def video(tmp_path):
    """A file of 12 frames whose brightness is 20 times their number."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (60, 40))
    assert writer.isOpened()
    for number in range(12):
        writer.write(np.full((40, 60, 3), 20 * number, np.uint8))
    writer.release()
    return path


class Camera:
    """A live capture: `cv2.VideoCapture` as far as it is used, giving a frame each `pace` seconds."""

    opened = released = None
    frames, pace, stall, works, length = 10**9, 0.005, None, True, -1.0

    def __init__(self, source):
        type(self).opened = source
        type(self).released = threading.Event()
        self._count = 0

    def isOpened(self):  # noqa: N802
        return self.works

    def read(self):
        if self.stall is not None and self._count == self.stall:
            type(self).released.wait(5)
            return False, None
        if self._count == self.frames:
            return False, None
        time.sleep(self.pace)
        self._count += 1
        frame = np.full((40, 60, 3), (7, 0, self._count % 256), np.uint8)  # blue, green, red
        return True, frame

    def get(self, _):
        return self.length

    def release(self):
        self.released.set()


@pytest.fixture
def camera(monkeypatch):
    kind = type("Camera", (Camera,), {})
    monkeypatch.setattr(cv2, "VideoCapture", kind)
    return kind


def reading():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("reading ")]
