"""Files of one JSON object a line, as people and killed runs leave them: bad lines are named and skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.data.annotation_schema import RunLengths
from sam3i_edge.masks import rle

LINE = TypeVar("LINE", bound="Line")


def _compressed(mask: RunLengths) -> RunLengths:
    """The mask, checked, with its counts as a string, which is what the page and the annotations take."""
    rle.area(mask.model_dump())
    if isinstance(mask.counts, str):
        return mask
    return RunLengths(size=mask.size, counts=rle.compress(np.asarray(mask.counts)))


Mask = Annotated[RunLengths, AfterValidator(_compressed)]


class Line(BaseModel):
    """A line; fields that this version does not know are left out."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


def read_lines(path: Path, kind: type[LINE]) -> tuple[list[tuple[int, LINE]], list[str]]:
    """Reads the good lines of a file.

    Returns:
        Number and content of every good line, and a sentence for every bad one, with its number.

    Raises:
        OSError: the file cannot be read.
    """
    good: list[tuple[int, LINE]] = []
    bad = []
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            good.append((number, kind.model_validate_json(line)))
        except ValidationError as error:
            bad.append(f"{path.name}, line {number}: {first_problem(error)}")
    return good, bad
