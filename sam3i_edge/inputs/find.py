"""From what people write to inputs: a file, a folder, a glob, a video, a camera, an address, "-"."""

from __future__ import annotations

import glob
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sam3i_edge.errors import DataError
from sam3i_edge.inputs.picture import ARRAY, SUFFIXES, Picture
from sam3i_edge.inputs.readers import READERS, Frames
from sam3i_edge.pipeline.frames import Newest, open_frames

_TIMEOUT: Final = 10.0  # seconds that a live source may take for a frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Pictures that belong together.

    Attributes:
        name: as it was written, for messages.
        pictures: opens it and gives them, in order. Raises StreamError where it cannot be opened, stops
            before its end, or was lost.
        count: how many, None where that is not known.
        moving: whether they are frames, of which one follows the other, so that things can be tracked.
        live: whether they come by themselves, and of those that come too fast only the newest is given.
        arrays: whether some are arrays in files, whose colours may be in OpenCV's order.
    """

    name: str
    pictures: Callable[[], Iterator[Picture]]
    count: int | None = None
    moving: bool = False
    live: bool = False
    arrays: bool = False


def find_inputs(texts: Sequence[str], *, stdin: Callable[[], bytes], every: int = 1) -> list[Input]:
    """What the texts name; nothing but folders is read yet.

    Files of a folder, its subfolders included, are taken by the endings of their names, in the order of their
    paths; hidden ones and others are left out. Pictures of one folder are named by their path in it, others
    as they were written. A file that is named twice counts once.

    Args:
        texts: files, folders, globs, numbers of cameras, addresses, pipelines of GStreamer; "-" for `stdin`.
        stdin: gives the bytes of a picture.
        every: of frames, take the first of so many.

    Raises:
        DataError: a text names nothing, or a folder holds no pictures.
        ValueError: `every` is under 1, or over 1 where there are no frames.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    found: list[Input] = []
    files: dict[Path, str] = {}  # and their names
    for text in texts:
        if text == "-":
            found.append(_single(Picture("-", stdin())))
        elif _is_stream(text):
            found.append(_stream(text, every))
        elif text.startswith(("http://", "https://")):
            found.append(_single(Picture(text, text)))
        else:
            files.update(_files(text, relative=len(texts) == 1))
    pictures = [path for path in files if path.suffix.lower() not in READERS]
    if pictures:
        found.insert(0, _of_files(pictures, files, texts))
    found += [_of_frames(path, files[path], every) for path in files if path.suffix.lower() in READERS]
    if every > 1 and not any(one.moving for one in found):
        raise ValueError("every is for the frames of videos and cameras, and there are none: leave it out")
    return found


def is_one_picture(text: str) -> bool:
    """Whether a text names one picture's file, or nothing that `find_inputs` would know."""
    if text == "-" or _is_stream(text) or text.startswith(("http://", "https://")) or os.path.isdir(text):
        return False
    if Path(text).suffix.lower() in (*READERS, ARRAY):
        return False
    return os.path.exists(text) or not glob.has_magic(text)


def _is_stream(text: str) -> bool:
    if os.path.exists(text):
        return Path(text).is_char_device()
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme in ("http", "https"):
        return Path(urlsplit(text).path).suffix.lower() not in SUFFIXES
    return bool(scheme) or text.isdecimal() or " ! " in text


def _files(text: str, *, relative: bool) -> dict[Path, str]:
    """The files that a text names, and the names of their pictures."""
    path = Path(text)
    if os.path.isdir(text):
        inside = list(_walk(path))
        if not inside:
            raise DataError(f"{text} holds no pictures and no videos: want some of {', '.join(SUFFIXES)}")
        return {file: (file.relative_to(path) if relative else file).as_posix() for file in inside}
    if os.path.exists(text):
        return {path: path.as_posix()}
    matching = (
        [Path(match) for match in sorted(glob.glob(text, recursive=True))] if glob.has_magic(text) else []
    )
    files = [file for match in matching for file in (_walk(match) if match.is_dir() else (match,))]
    if not files:
        raise DataError(
            f"there is nothing at {text!r}: give a file, a folder, a pattern such as 'photos/*.jpg', the "
            "number of a camera, or an address"
        )
    return {file: file.as_posix() for file in files}


def _walk(folder: Path) -> Iterator[Path]:
    """Pictures and videos in a folder; links to folders are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in (*SUFFIXES, *READERS):
                yield Path(place, name)


def _single(picture: Picture) -> Input:
    return Input(name=picture.name, pictures=lambda: iter([picture]), count=1)


def _of_files(paths: Sequence[Path], names: dict[Path, str], texts: Sequence[str]) -> Input:
    return Input(
        name=", ".join(texts),
        pictures=lambda: (Picture(names[path], path) for path in paths),
        count=len(paths),
        arrays=any(path.suffix.lower() == ARRAY for path in paths),
    )


def _of_frames(path: Path, name: str, every: int) -> Input:
    frames: Frames = READERS[path.suffix.lower()](path)

    def pictures() -> Iterator[Picture]:
        for number, (seconds, image) in enumerate(frames):
            if number % every == 0:
                yield Picture(f"{name}/{number:06d}", image, seconds)

    count = frames.count
    return Input(
        name=name, pictures=pictures, count=None if count is None else -(-count // every), moving=True
    )


def _stream(text: str, every: int) -> Input:
    """A camera or an address; its frames are named by when they came, so no two runs share a name."""

    def pictures() -> Iterator[Picture]:
        video, name, _ = open_frames(int(text) if text.isdecimal() else text)
        newest = Newest(video, name, _TIMEOUT)
        began: float | None = None
        try:
            for image in itertools.islice(newest, 0, None, every):
                began = began or time.monotonic()
                at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
                yield Picture(f"{text}/{at}", image, time.monotonic() - began)
        finally:
            newest.stop()

    return Input(name=text, pictures=pictures, moving=True, live=True)
