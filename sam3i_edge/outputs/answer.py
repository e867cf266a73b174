"""What was found in one picture, and its line of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.result import Result


@dataclass(frozen=True, slots=True)
class Answer:
    """The results of one picture.

    Attributes:
        name: of the picture.
        results: one for each instruction, in their order; none where the picture could not be read.
        seconds: of a frame, since its video began.
        error: why the picture could not be read, or None.
    """

    name: str
    results: Sequence[Result] = ()
    seconds: float | None = None
    error: str | None = None

    @property
    def image(self) -> NDArray[np.uint8]:
        """The picture, [H, W, 3] uint8 RGB."""
        image = self.results[0].image
        if image is None:
            raise ValueError("these results were read from JSON and have no picture")
        return image

    def line(self) -> dict[str, Any]:
        """Plain values: name and error, or name, seconds, size (height, width) and results."""
        if self.error is not None:
            return {"name": self.name, "error": self.error}
        return {
            "name": self.name,
            "seconds": self.seconds,
            "size": list(self.results[0].image_size),
            "results": [result.to_dict() for result in self.results],
        }


def inner_path(name: str) -> PurePosixPath:
    """A picture's name as a path that leads out of no folder: "/a/../b.png" is a/b.png."""
    parts = [part for part in PurePosixPath(name.replace("://", "/")).parts if part not in ("/", "..")]
    return PurePosixPath(*(part.replace(":", "-") for part in parts))


class Timeline:
    """When the answers of a run are shown: frames at the times of their video, each picture for a second.

    A video begins after what came before it, and no two answers have one time.

    Args:
        second: ticks of a second.
    """

    def __init__(self, second: int) -> None:
        self._second = second
        self._next = self._shift = 0  # ticks: of the next answer at the earliest; of this video's beginning
        self._pictures = 0

    def ticks(self, answer: Answer) -> int:
        """Of the next answer."""
        its_own = round((self._pictures if answer.seconds is None else answer.seconds) * self._second)
        self._pictures += answer.seconds is None
        self._shift = max(self._shift, self._next - its_own)
        self._next = self._shift + its_own + 1
        return self._next - 1


class Output(Protocol):
    """Takes answers, one after the other, in one thread."""

    @property
    def kept(self) -> Mapping[str, str | None]:
        """Names that a run before has written, and why those that could not be read could not."""

    def write(self, answer: Answer) -> None:
        """Writes an answer.

        Raises:
            OSError: it cannot be written.
        """
