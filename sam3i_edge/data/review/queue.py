"""What waits for a decision: `review.jsonl`, one instruction a line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, model_validator

from sam3i_edge.data.annotation_schema import Side, relative
from sam3i_edge.data.annotations import IMAGES
from sam3i_edge.data.instructions import Granularity
from sam3i_edge.data.review.lines import Line, Mask, read_lines
from sam3i_edge.errors import DataError
from sam3i_edge.levels import Level

QUEUE: Final = "review.jsonl"
LONGEST: Final = 400  # characters of an instruction

Words = Annotated[str, Field(pattern=r"\S", max_length=LONGEST)]


class ReviewItem(Line):
    """An instruction whose targets are not certain.

    Attributes:
        id: of the content; decisions name it.
        file: the picture, relative to the folder: "images/…".
        size: (height, width) px of the picture.
        text: the instruction.
        level: of it.
        granularity: of it, if the guess is right.
        targets: masks that are the best guess, compressed.
        others: masks of the scene's other objects.
        numbers: what `why` calls the objects, targets first; from 1 on where the file does not say.
        why: what is not certain, a sentence.
        form: what is asked, such as "relation".
    """

    id: Annotated[str, Field(min_length=1, max_length=200)]
    file: Annotated[str, BeforeValidator(relative)]
    size: tuple[Side, Side]
    text: Words
    level: Level
    granularity: Granularity
    targets: tuple[Mask, ...]
    others: tuple[Mask, ...] = ()
    numbers: tuple[Annotated[int, Field(ge=0)], ...] = ()
    why: str = ""
    form: str = ""

    @property
    def objects(self) -> tuple[Mask, ...]:
        """Targets, then others: what the page numbers from 0."""
        return self.targets + self.others

    @model_validator(mode="after")
    def _consistent(self) -> ReviewItem:
        if not self.file.startswith(f"{IMAGES}/"):
            raise ValueError(f"file must be a picture in {IMAGES}/, got {self.file!r}")
        if self.numbers and not len(self.numbers) == len(set(self.numbers)) == len(self.objects):
            raise ValueError(f"want {len(self.objects)} numbers that differ, one an object")
        for mask in self.objects:
            if tuple(mask.size) != self.size:
                raise ValueError(f"a mask is {mask.size}, its picture {list(self.size)} (height, width)")
        return self


@dataclass(frozen=True, slots=True)
class Queue:
    """The items in the order of the file, by id, and what is wrong with the lines that were skipped."""

    items: dict[str, ReviewItem]
    problems: tuple[str, ...]


def read_queue(folder: Path) -> Queue:
    """Reads FOLDER/review.jsonl.

    Raises:
        DataError: there is none, or it holds no good line.
    """
    path = folder / QUEUE
    try:
        lines, problems = read_lines(path, ReviewItem)
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or error}; name a folder that 'sam3i-edge instruct' has written"
        ) from error
    items: dict[str, ReviewItem] = {}
    for number, item in lines:
        if item.id in items:
            problems.append(f"{QUEUE}, line {number}: id {item.id!r} is there twice; the first one counts")
        else:
            items[item.id] = item
    if not items:
        raise DataError(f"{path} holds nothing to review" + (f": {problems[0]}" if problems else ""))
    return Queue(items, tuple(problems))
