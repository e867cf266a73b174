"""Files that hold many frames, by the ending of their names. One more kind is one more line of `READERS`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

import cv2

from sam3i_edge.errors import StreamError
from sam3i_edge.pipeline.preprocess import ImageSource
from sam3i_edge.pipeline.video import Video


class Frames(Protocol):
    """The frames of a file, read as they are asked for."""

    def __iter__(self) -> Iterator[tuple[float | None, ImageSource]]:
        """Each frame with its seconds since the first, None where the file does not say.

        Raises:
            StreamError: the file cannot be read, or ends before its frames do.
        """

    @property
    def count(self) -> int | None:
        """How many frames it has, None where that is not known before they are read."""


class VideoFrames:
    """Frames of a video's file that OpenCV reads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[tuple[float | None, ImageSource]]:
        """See `Frames`."""
        video = Video(str(self._path), f"video {str(self._path)!r}", live=False)
        with contextlib.closing(video):
            for number, frame in enumerate(video):
                yield None if video.rate is None else number / video.rate, frame
            # Some containers tell their frames from their duration, rounded.
            if video.count < video.length - max(1, video.length // 100):
                raise StreamError(
                    f"{video.name} stopped after {video.count:,} of {video.length:,} frames: its end is "
                    "missing"
                )

    @property
    def count(self) -> int | None:
        """Frames that the file says it has."""
        capture = cv2.VideoCapture(str(self._path))
        length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        return length if length > 0 else None


_VIDEOS: Final = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts")
READERS: Final[dict[str, Callable[[Path], Frames]]] = dict.fromkeys(_VIDEOS, VideoFrames)
