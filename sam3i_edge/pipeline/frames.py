"""Frames of a camera, a video or any images, one after the other, and a thread that keeps the newest."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from sam3i_edge.errors import StreamError
from sam3i_edge.pipeline.preprocess import ImageSource
from sam3i_edge.pipeline.video import Video

_log = logging.getLogger(__name__)

Source = Iterable[ImageSource] | int | str | Path

# Seconds that `stop` waits for a thread which reads; a camera that stalls may hold it for ever.
_PATIENCE = 1.0


class Newest(Iterator[ImageSource]):
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
        """Ends the thread, and the waiting for a frame."""
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


def open_frames(source: Source, reconnect: float = 0.0) -> tuple[Iterator[ImageSource], str, bool]:
    """The source's frames, its name for messages, and whether it is live. Nothing is read yet.

    Raises:
        TypeError, ValueError: the source is none, or a camera's number is negative.
        StreamError: there is no such file.
    """
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
