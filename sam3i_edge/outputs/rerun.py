"""Answers in rerun, which shows them as they come: pictures, masks, boxes, ids, times.

The module is named after the library that it alone imports, on use.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.files import whole_file
from sam3i_edge.install_hint import install_hint
from sam3i_edge.masks.label_image import label_image
from sam3i_edge.outputs.answer import Answer
from sam3i_edge.result import Result

if TYPE_CHECKING:
    from rerun import RecordingStream

_QUALITY: Final = 90  # of the pictures, as JPEG
_MOST: Final = 65_534  # what a label image holds


@contextlib.contextmanager
def rerun_log(path: Path | None = None) -> Iterator[RerunLog]:
    """A recording: a file, which appears when the block ends well, or the viewer, which is started.

    Raises:
        RuntimeUnavailable: the library, or its viewer, is not installed.
        OSError: the file cannot be written.
    """
    try:
        import rerun
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(f"rerun needs {error.name}: {install_hint('rerun')}") from error
    stream = rerun.RecordingStream("sam3i-edge")
    if path is None:
        try:
            stream.spawn()
        except RuntimeError as error:
            raise RuntimeUnavailable(f"rerun's viewer cannot be started: {error}; write a .rrd") from error
        yield RerunLog(stream, stream.flush)
        return
    # Not `stream.save`: where there is no room its thread ends, and a flush waits for it for ever.
    encoded = rerun.binary_stream(stream)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        log = RerunLog(stream, lambda: file.write(encoded.read() or b""))
        yield log
        log.send()


class RerunLog:
    """On the timelines `picture` (the number) and, for frames, `video` (their time). Made by `rerun_log`.

    Below `picture` each instruction has `masks`, whose pixels are the tracks' ids, or numbers from 1 where
    nothing is tracked, and `boxes`, with ids and scores; `timings` has milliseconds by step.
    """

    def __init__(self, stream: RecordingStream, send: Callable[[], object]) -> None:
        self._stream = stream
        self.send = send  # what was logged so far
        self._count = 0
        self.kept: dict[str, str | None] = {}  # a recording begins anew

    def write(self, answer: Answer) -> None:
        """Logs a picture and what was found; one that could not be read is a line of text."""
        import rerun

        stream = self._stream
        stream.set_time("picture", sequence=self._count)
        self._count += 1
        if answer.seconds is not None:
            stream.set_time("video", duration=answer.seconds)
        if answer.error is None:
            stream.log("name", rerun.TextLog(answer.name, level=rerun.TextLogLevel.INFO))
            self._log(answer)
        else:
            text = f"{answer.name}: {answer.error}"
            stream.log("name", rerun.TextLog(text, level=rerun.TextLogLevel.ERROR))
        self.send()

    def _log(self, answer: Answer) -> None:
        import rerun

        stream = self._stream
        stream.log("picture", rerun.Image(answer.image).compress(jpeg_quality=_QUALITY))
        for result in answer.results:
            place = ["picture", result.instruction or "boxes"]
            numbers = _numbers(result)
            masks = label_image(result.iter_masks(), numbers.tolist(), result.image_size)
            stream.log([*place, "masks"], rerun.SegmentationImage(masks))
            stream.log(
                [*place, "boxes"],
                rerun.Boxes2D(
                    array=result.boxes,
                    array_format=rerun.Box2DFormat.XYXY,
                    labels=[f"{n}: {score:.2f}" for n, score in zip(numbers, result.scores, strict=True)],
                    class_ids=numbers,
                ),
            )
            stream.log([*place, "presence"], rerun.Scalars(result.presence))
        for step, spent in _timings(answer).items():
            stream.log(["timings", step], rerun.Scalars(spent))


def _numbers(result: Result) -> NDArray[np.int64]:
    """The ids of tracks, above them numbers for what has none yet; from 1 where nothing is tracked."""
    if result.track_ids is None:
        return np.arange(1, len(result) + 1)
    numbers = (result.track_ids - 1) % (_MOST - 200) + 1
    without = result.track_ids == 0
    numbers[without] = _MOST - 200 + np.arange(1, without.sum() + 1)
    return np.minimum(numbers, _MOST)


def _timings(answer: Answer) -> dict[str, float]:
    """Milliseconds by step, summed over the instructions."""
    steps = answer.results[0].timings_ms
    return {step: sum(result.timings_ms[step] for result in answer.results) for step in steps}
