"""`Scene`, an image encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NoReturn, TypedDict, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam3i_edge.levels import Level
from sam3i_edge.pipeline.ask import Arrays
from sam3i_edge.pipeline.request import Request, refuse
from sam3i_edge.pipeline.timing import Clock
from sam3i_edge.result import Result


class Options(TypedDict, total=False):
    """What may be asked beside the instruction; see `Segmenter.segment`."""

    boxes: ArrayLike | None
    box_labels: ArrayLike | None
    level: Level | Literal["auto"]
    threshold: float | None
    suppress: float | None


class Scene:
    """An image that was encoded once, to be asked often. Made by `Segmenter.encode`.

    It holds the image and its features, so it lives as long as the caller keeps it, independent of the
    image cache; it can be asked until its segmenter is closed. Thread-safe.

    Attributes:
        image: [H, W, 3] uint8 RGB, read-only.
        features: what the image encoder gave, by name.
    """

    def __init__(
        self,
        image: NDArray[np.uint8],
        features: Arrays,
        *,
        check: Callable[..., list[Request]],
        answer: Callable[[Scene, Request, Clock], Result],
    ) -> None:
        """Holds the image.

        Args:
            image: see above.
            features: see above.
            check: makes the arguments of `segment` requests, or raises.
            answer: answers one request about a scene.
        """
        self.image, self.features = image, features
        self._check, self._answer = check, answer

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Scene cannot be pickled, its segmenter belongs to this process: send its image, and encode it "
            "with a Segmenter of the other process"
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image, pixels."""
        return self.image.shape[0], self.image.shape[1]

    @overload
    def segment(self, instruction: str | None = None, **options: Unpack[Options]) -> Result: ...
    @overload
    def segment(
        self, instruction: list[str] | tuple[str, ...], **options: Unpack[Options]
    ) -> list[Result]: ...
    def segment(
        self,
        instruction: str | list[str] | tuple[str, ...] | None = None,
        *,
        boxes: ArrayLike | None = None,
        box_labels: ArrayLike | None = None,
        level: Level | Literal["auto"] = "auto",
        threshold: float | None = None,
        suppress: float | None = None,
        **unknown: object,
    ) -> Result | list[Result]:
        """Segments what `instruction` describes or `boxes` show; see `Segmenter.segment`."""
        clock = Clock()
        refuse(unknown)
        requests = self._check(instruction, level, threshold, boxes, box_labels, suppress)
        for request in requests[:1]:
            request.check_inside(self.image_size)
        results = self.answer(requests, clock)
        return results if isinstance(instruction, (list, tuple)) else results[0]

    def answer(self, requests: Sequence[Request], clock: Clock) -> list[Result]:
        """Answers what was checked; the time that the image took is the first one's."""
        return [self._answer(self, one, Clock() if n else clock) for n, one in enumerate(requests)]
