"""The elements of the arrays in a large JSON file one by one, with their places in it, in little memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from sam3i_edge.errors import DataError

_CHUNK: Final = 1 << 24  # bytes read at a time
_LONGEST: Final = 1 << 28  # bytes of one element
_SPACE: Final = " \t\n\r"
_SHORT: Final = 5000  # characters of the longest number


class Element(NamedTuple):
    """One element of an array of the outermost object, or a whole member that is no array.

    Attributes:
        key: the member it belongs to.
        value: parsed.
        start: its first byte in the file.
        end: after its last byte.
        place: number in its array; -1 for a whole member, -2 for an empty array, whose value is [].
    """

    key: str
    value: Any
    start: int
    end: int
    place: int


WHOLE: Final = -1
EMPTY: Final = -2


def elements(path: Path) -> Iterator[Element]:
    """Goes through a file whose outermost value is an object.

    Raises:
        DataError: it is missing, not JSON, no object, or cut.
    """
    try:
        with path.open("rb") as file:
            yield from _Reader(path, file).members()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or type(error).__name__}; name a file of annotations"
        ) from error


class _Reader:
    """A window on the file; every byte is one character of it, so that places are those of bytes."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._text, self._at, self._before, self._over = "", 0, 0, False
        self._decode = json.JSONDecoder().raw_decode

    def members(self) -> Iterator[Element]:
        self._more()
        if self._text.startswith("\xef\xbb\xbf"):  # as Windows tools write it
            self._at = 3
        if self._next() != "{":
            raise DataError(f"{self._path}: must be a JSON object, begins with {self._peek()!r}")
        self._at += 1
        while self._next() != "}":
            key, _, _ = self._value()
            if not isinstance(key, str):
                raise self._broken(f"a name must be a text, got {key!r:.40}")
            self._expect(":")
            if self._next() != "[":
                value, start, end = self._value()
                yield Element(key, value, start, end, WHOLE)
            else:
                self._at += 1
                yield from self._array(key)
            if self._next() == "}":
                break
            self._expect(",")
        self._at += 1
        if self._next():
            raise self._broken("something follows the end")

    def _array(self, key: str) -> Iterator[Element]:
        if self._next() == "]":
            yield Element(key, [], self._before + self._at, self._before + self._at, EMPTY)
        place = 0
        while self._next() != "]":
            yield Element(key, *self._value(), place)
            place += 1
            if self._next() == "]":
                break
            self._expect(",")
        self._at += 1

    def _value(self) -> tuple[Any, int, int]:
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                reason, at = error.msg.lower(), error.pos
                # What the window's end cuts may be whole: a text from its beginning, else the last few signs.
                cut = "unterminated" in reason or len(self._text) - at < _SHORT
                reason = "it ends too early" if at >= len(self._text) else reason
            except RecursionError:
                raise self._broken("it is nested too deep") from None
            except ValueError as error:
                raise self._broken(str(error).partition(":")[0]) from error
            else:
                # A number at the window's end may go on behind it.
                if end < len(self._text) or self._over:
                    break
                reason, cut = "it ends too early", True
            if self._over or not cut or len(self._text) - self._at > _LONGEST:
                raise self._broken(reason)
            self._more()
        start, self._at = self._at, end
        piece = self._text[start:end]
        if not piece.isascii():
            try:
                value = json.loads(piece.encode("latin-1"))
            except ValueError as error:
                raise self._broken(f"it is no UTF-8 ({error})") from error
        return value, self._before + start, self._before + end

    def _next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if self._over:
                return ""
            self._more()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 12]

    def _expect(self, sign: str) -> None:
        if self._next() != sign:
            raise self._broken(
                f"{sign!r} is missing before {self._peek()!r}" if self._peek() else "it ends too early"
            )
        self._at += 1

    def _more(self) -> None:
        """Moves the window on: as much again as what is not read yet, so that no byte is read often."""
        rest = self._text[self._at :]
        self._before += self._at
        read = self._file.read(max(_CHUNK, len(rest)))
        self._over = not read
        self._text, self._at = rest + read.decode("latin-1"), 0

    def _broken(self, reason: str) -> DataError:
        return DataError(
            f"{self._path} is not valid JSON at byte {self._before + self._at:,}: {reason}; was it copied to "
            "its end?"
        )
