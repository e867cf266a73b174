"""`Stream`: one result for each frame of a camera, a video, or any sequence of images."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator

from sam3i_edge.following import Follower
from sam3i_edge.pipeline.frames import Newest, Source, open_frames
from sam3i_edge.pipeline.preprocess import ImageSource
from sam3i_edge.pipeline.request import Request
from sam3i_edge.pipeline.video import Video
from sam3i_edge.result import Result
from sam3i_edge.tracking import TrackerName


class Stream(Iterator[Result]):
    """Results of one frame after the other, with track ids. Made by `Segmenter.stream`.

    Iterate in one thread; `instruction`, `dropped`, `reconnected` and `close` may be used from others. An
    error, the end of the frames and Ctrl-C close it.
    """

    def __init__(
        self,
        source: Source,
        instruction: str,
        *,
        check: Callable[[str], Request],
        segment: Callable[[ImageSource, Request], Result],
        newest: bool | None = None,
        timeout: float = 10.0,
        reconnect: float = 0.0,
        tracker: TrackerName = "iou",
        smoothing: float = 0.0,
    ) -> None:
        """Checks the arguments; nothing is opened before the first result is asked for.

        Args:
            source: images, the number of a camera, or a video's file or URL.
            instruction: what to segment.
            check: makes an instruction a request, or raises.
            segment: segments one frame.
            newest: see `Segmenter.stream`.
            timeout: see `Segmenter.stream`.
            reconnect: see `Segmenter.stream`.
            tracker: see `Segmenter.stream`.
            smoothing: see `Segmenter.stream`.

        Raises:
            ImportError: the tracker's library is not installed.
            ValueError: the tracker is unknown, `smoothing` out of range, the timeout is not above 0, the
                number of the camera is negative, or `reconnect` is negative, not finite or asked of what is
                not live.
            TypeError: the source is none of these.
        """
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, got {timeout}")
        if not 0 <= reconnect < math.inf:
            raise ValueError(f"reconnect must be at least 0 seconds, got {reconnect}")
        self._request = check(instruction)
        self._check, self._segment = check, segment
        self._follower = Follower(tracker, smoothing)
        self._tracked: tuple[Request, tuple[int, int]] | None = None
        self._closed = False
        frames, name, live = open_frames(source, reconnect)
        if reconnect and not live:
            raise ValueError(f"reconnect is for a camera or an address, and {name} is neither: leave it out")
        self._frames = frames
        self._video = frames if isinstance(frames, Video) else None
        self._reader: Newest | None = None
        if live if newest is None else newest:
            self._frames = self._reader = Newest(frames, name, timeout + reconnect)
            weakref.finalize(self, self._reader.stop)  # also when it is dropped without `close`

    @property
    def instruction(self) -> str | None:
        """What is segmented. Setting it takes effect with the next frame, and starts new tracks.

        Raises:
            InstructionError, ValueError: as in `Segmenter.segment`; what was asked before stays.
        """
        return self._request.instruction

    @instruction.setter
    def instruction(self, value: str) -> None:
        self._request = self._check(value)

    @property
    def dropped(self) -> int:
        """Frames that were read and replaced by a newer one before they could be segmented."""
        return 0 if self._reader is None else self._reader.dropped

    @property
    def reconnected(self) -> int:
        """How often the source was lost and came back."""
        return 0 if self._video is None else self._video.reconnected

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Result:
        """Segments the next frame.

        Raises:
            StopIteration: the frames have ended, or the stream was closed.
            StreamError: the source cannot be opened, stalls or fails.
            ImageError: a frame is no image.
            RuntimeUnavailable: the segmenter was closed, or its runtime failed.
        """
        if self._closed:
            raise StopIteration
        try:
            frame = next(self._frames)
            request = self._request
            result = self._segment(frame, request)
            if self._tracked != (request, result.image_size):
                self._follower.reset()
                self._tracked = request, result.image_size
            return self._follower.follow(result)
        except BaseException:  # whatever it is, the camera is let go of
            self.close()
            raise

    def close(self) -> None:
        """Stops reading and lets go of the source. Closing twice does nothing."""
        self._closed = True
        if self._reader is not None:
            self._reader.stop()
        elif self._video is not None:
            self._video.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
