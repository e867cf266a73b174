"""`Stream`: one result for each frame of a camera, a video, or any sequence of images."""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sam3i_edge.errors import StreamError
from sam3i_edge.pipeline.preprocess import ImageSource
from sam3i_edge.pipeline.request import Request
from sam3i_edge.pipeline.video import Video
from sam3i_edge.result import Result
from sam3i_edge.tracking import TrackerName, open_tracker

_log = logging.getLogger(__name__)

Source = Iterable[ImageSource] | int | str | Path

# Seconds that `close` waits for a thread which reads; a camera that stalls may hold it for ever.
_PATIENCE = 1.0


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

        Raises:
            ImportError: the tracker's library is not installed.
            ValueError: the tracker is unknown, the timeout is not above 0, the number of the camera is
                negative, or `reconnect` is negative, not finite or asked of what is not live.
            TypeError: the source is none of these.
        """
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, got {timeout}")
        if not 0 <= reconnect < math.inf:
            raise ValueError(f"reconnect must be at least 0 seconds, got {reconnect}")
        self._request = check(instruction)
        self._check, self._segment = check, segment
        self._tracker = open_tracker(tracker)
        self._tracked: tuple[Request, tuple[int, int]] | None = None
        self._closed = False
        frames, name, live = _frames(source, reconnect)
        if reconnect and not live:
            raise ValueError(f"reconnect is for a camera or an address, and {name} is neither: leave it out")
        self._frames = frames
        self._video = frames if isinstance(frames, Video) else None
        self._reader: _Newest | None = None
        if live if newest is None else newest:
            self._frames = self._reader = _Newest(frames, name, timeout + reconnect)
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
                self._tracker.reset()
                self._tracked = request, result.image_size
            return dataclasses.replace(result, track_ids=self._tracker.update(result))
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


class _Newest(Iterator[ImageSource]):
    """Reads frames in a thread and gives the newest: one is kept, older ones are dropped and counted."""

    def __init__(self, frames: Iterator[ImageSource], name: str, timeout: float) -> None:
        self._frames, self._name, self._timeout = frames, name, timeout
        self._changed = threading.Condition()
        self._frame: ImageSource | None = None
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def __next__(self) -> ImageSource:
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name=f"reading {self._name}", daemon=True)
            self._thread.start()
        with self._changed:
            ready = self._changed.wait_for(
                lambda: self._frame is not None or self._ended or self._stopped, self._timeout
            )
            if not ready:
                raise StreamError(
                    f"{self._name} gave no frame for {self._timeout:g} s: is it still connected? Open it "
                    "again, or pass a longer timeout"
                )
            if self._frame is not None and not self._stopped:
                frame, self._frame = self._frame, None
                return frame
            if self._error is not None:
                raise self._error
            raise StopIteration

    def stop(self) -> None:
        if isinstance(self._frames, Video):
            self._frames.stop()
        with self._changed:
            self._stopped = True
            self._frame = None
            self._changed.notify_all()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)
            if thread.is_alive():
                _log.warning("%s is still being waited for; its thread ends with it", self._name)

    def _read(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    if self._stopped:
                        break
                    self.dropped += self._frame is not None
                    self._frame = frame
                    self._changed.notify_all()
        except BaseException as error:  # raised again in the thread that asks for frames
            self._error = error
        finally:
            if isinstance(self._frames, Video):
                self._frames.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def _frames(source: Source, reconnect: float) -> tuple[Iterator[ImageSource], str, bool]:
    """The source's frames, its name for messages, and whether it is live."""
    if isinstance(source, bool):
        raise TypeError("frames must be images, the number of a camera, or a video's file or URL, got a bool")
    if isinstance(source, int):
        if source < 0:
            raise ValueError(f"a camera's number is at least 0, got {source}")
        name, live = f"camera {source}", True
    elif isinstance(source, (str, Path)):
        source = str(source)
        is_camera = "://" not in source and Path(source).is_char_device()
        # An address, or a pipeline of GStreamer.
        live = is_camera or "://" in source or " ! " in source
        name = f"camera {source}" if is_camera else f"video {source!r}"
        if not live and not Path(source).is_file():
            raise StreamError(
                f"there is no video at {source!r}: give a file, an address (rtsp://...) or a camera"
            )
    else:
        return iter(source), "the stream", False
    return Video(source, name, live=live, reconnect=reconnect), name, live
