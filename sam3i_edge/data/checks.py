"""A value of a JSON file that knows where it stands, so that one line can tell what is wrong with it."""

from __future__ import annotations

import math
from typing import Any

from sam3i_edge.errors import DataError


class Field:
    """A JSON value and its place: file, record, field.

    Attributes:
        value: as json.loads gives it.
        place: "train.json: image 7: width".
    """

    __slots__ = ("_file", "place", "value")

    def __init__(self, value: Any, place: str, file: str | None = None) -> None:
        self.value, self.place, self._file = value, place, file or place

    def error(self, problem: str) -> DataError:
        """The error to raise about this value."""
        return DataError(f"{self.place}: {problem}")

    def named(self, name: str) -> Field:
        """The same value under a name that a reader can search for."""
        return Field(self.value, f"{self._file}: {name}", self._file)

    def __getitem__(self, key: str) -> Field:
        if key not in self.value:
            raise self.error(f"{key} is missing")
        return Field(self.value[key], f"{self.place}: {key}", self._file)

    def get(self, key: str, default: Any) -> Field:
        """The entry of an object, or a field of the default where it is missing."""
        return Field(self.value.get(key, default), f"{self.place}: {key}", self._file)

    def mapping(self) -> Field:
        """Itself, when it is an object."""
        if not isinstance(self.value, dict):
            raise self.error(f"must be an object, got {_kind(self.value)}")
        return self

    def items(self, least: int = 0) -> list[Field]:
        """The entries of a list of at least so many."""
        if not isinstance(self.value, list) or len(self.value) < least:
            wanted = f"a list of at least {least}" if least else "a list"
            raise self.error(f"must be {wanted}, got {_kind(self.value)}")
        return [Field(entry, f"{self.place}[{i}]", self._file) for i, entry in enumerate(self.value)]

    def whole(self, least: int | None = None) -> int:
        """A whole number, of at least `least`."""
        value = self.value
        if isinstance(value, float) and value.is_integer():  # some writers put 640.0
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
            wanted = "a whole number" if least is None else f"a whole number of at least {least}"
            raise self.error(f"must be {wanted}, got {_kind(self.value)}")
        return value

    def number(self) -> float:
        """A finite number."""
        if (
            not isinstance(self.value, int | float)
            or isinstance(self.value, bool)
            or not math.isfinite(self.value)
        ):
            raise self.error(f"must be a finite number, got {_kind(self.value)}")
        return float(self.value)

    def text(self) -> str:
        """A string that is not blank."""
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.error(f"must be a text, got {_kind(self.value)}")
        return self.value

    def texts(self) -> list[str]:
        """A list of strings that are not blank; a single string counts as a list of one."""
        if isinstance(self.value, str):
            return [self.text()]
        return [entry.text() for entry in self.items()]

    def box(self) -> tuple[float, float, float, float]:
        """Four finite numbers, the last two not negative."""
        numbers = [entry.number() for entry in self.items()]
        if len(numbers) != 4 or min(numbers[2:]) < 0:
            raise self.error(f"must be [x, y, width, height] in pixels, got {self.value}")
        return numbers[0], numbers[1], numbers[2], numbers[3]

    def polygon(self) -> list[float]:
        """A flat list x0, y0, x1, y1, … of at least three points."""
        numbers = [entry.number() for entry in self.items()]
        if len(numbers) < 6 or len(numbers) % 2:
            raise self.error(
                f"must be x0, y0, x1, y1, … of at least three points, got {len(numbers)} numbers"
            )
        return numbers


def _kind(value: object) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
