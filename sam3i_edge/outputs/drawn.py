"""Answers drawn over their pictures: one file, a folder of files, or a video."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import DataError, RuntimeUnavailable
from sam3i_edge.files import sweep, whole_file
from sam3i_edge.install_hint import install_hint
from sam3i_edge.masks import overlay
from sam3i_edge.outputs.answer import Answer, Timeline, inner_path
from sam3i_edge.outputs.lines import Lines

if TYPE_CHECKING:
    import av.container

RESULTS: Final = "results.jsonl"
_TICKS: Final = 90_000  # a second, of a video's times


def draw(answer: Answer) -> NDArray[np.uint8]:
    """The picture with the instances of all its results; a track keeps its colour.

    Returns:
        uint8 RGB, larger than the picture; see `overlay.draw`.
    """
    results = answer.results
    tracks = [
        number for result in results for number in (() if result.track_ids is None else result.track_ids)
    ]
    return overlay.draw(
        answer.image,
        itertools.chain.from_iterable(result.iter_masks() for result in results),
        np.concatenate([result.boxes for result in results]),
        np.concatenate([result.scores for result in results]),
        title=", ".join(f"{result.instruction or '(by boxes)'}: {len(result)}" for result in results),
        note=" | ".join([results[0].model, *results[0].notes]),
        numbers=tracks or None,
    )


class Drawn:
    """One file, .png or .jpg, of one picture."""

    def __init__(self, path: Path) -> None:
        self.path = overlay.check_path(path)
        self.kept: dict[str, str | None] = {}

    def write(self, answer: Answer) -> None:
        """Draws the picture, if it could be read."""
        if answer.error is None:
            overlay.write(draw(answer), self.path)


@contextlib.contextmanager
def drawn_folder(folder: Path, settings: Mapping[str, Any]) -> Iterator[DrawnFolder]:
    """A folder: a drawing under each picture's name, and `results.jsonl`, by which a later run goes on.

    Args:
        folder: made where it is missing.
        settings: as of `Lines`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with Lines(folder / RESULTS, settings) as lines:
        sweep(folder)
        yield DrawnFolder(folder, lines)


class DrawnFolder:
    """Made by `drawn_folder`."""

    def __init__(self, folder: Path, lines: Lines) -> None:
        self.folder, self._lines = folder, lines

    @property
    def kept(self) -> Mapping[str, str | None]:
        """What is drawn and has its line."""
        return self._lines.kept

    def write(self, answer: Answer) -> None:
        """Draws first, then adds the line: a line has its drawing."""
        if answer.error is None:
            target = self.path(answer.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            overlay.write(draw(answer), target)
        self._lines.write(answer)

    def path(self, name: str) -> Path:
        """Where the drawing of a picture lies: under its name, with .jpg where that is no ending of ours."""
        target = self.folder / inner_path(name)
        drawable = target.suffix.lower() in overlay.SUFFIXES
        return target if drawable else target.with_name(target.name + ".jpg")


@contextlib.contextmanager
def drawn_video(path: Path) -> Iterator[DrawnVideo]:
    """An MP4 of H.264, by the encoder that PyAV brings; it appears when the block ends well.

    Raises:
        RuntimeUnavailable: PyAV is not installed.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(f"{path}: an MP4 needs {error.name}: {install_hint('video')}") from error
    # The ending of the temporary name does not tell the container.
    with whole_file(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        video = DrawnVideo(container)
        yield video
        video.end()


class DrawnVideo:
    """Frames have the times of their video; pictures are shown for a second. Made by `drawn_video`."""

    def __init__(self, container: av.container.OutputContainer) -> None:
        self._container = container
        self._stream: Any = None
        self._timeline = Timeline(_TICKS)
        self.kept: dict[str, str | None] = {}  # a video is written from its beginning

    def write(self, answer: Answer) -> None:
        """Adds a frame; what could not be read is no frame. Other sizes than the first are fitted into it."""
        import av

        if answer.error is not None:
            return
        drawn = draw(answer)
        if self._stream is None:
            self._stream = self._container.add_stream("h264", rate=30)
            self._stream.height, self._stream.width = (side + side % 2 for side in drawn.shape[:2])
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, _TICKS)
        frame = av.VideoFrame.from_ndarray(_fitted(drawn, self._stream.height, self._stream.width), "rgb24")
        frame.pts, frame.time_base = self._timeline.ticks(answer), Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def end(self) -> None:
        """Writes what the encoder still holds.

        Raises:
            DataError: there was no frame.
        """
        if self._stream is None:
            raise DataError("there is no frame to make a video of")
        self._container.mux(self._stream.encode())


def _fitted(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The picture in the middle of another size, made smaller or larger where it must, black around."""
    scale = min(height / picture.shape[0], width / picture.shape[1])
    if (height, width) == picture.shape[:2]:
        return picture
    if picture.shape[0] > height or picture.shape[1] > width or scale > 1.01:
        size = max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    whole = np.zeros((height, width, 3), np.uint8)
    y, x = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    whole[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return whole
