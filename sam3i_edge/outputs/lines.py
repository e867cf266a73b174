"""Answers as lines of JSON, in a file that a later run goes on with, or on standard output."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from sam3i_edge.errors import DataError
from sam3i_edge.files import named
from sam3i_edge.outputs.answer import Answer


class Printed:
    """Lines on a stream, from the beginning each time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.kept: dict[str, str | None] = {}

    def write(self, answer: Answer) -> None:
        """Writes the line at once."""
        self._stream.write(json.dumps(answer.line(), allow_nan=False) + "\n")
        self._stream.flush()


class Lines:
    """A file of lines, held by this process alone. Lines are added; a half one, of a killed run, is cut off.

    Attributes:
        kept: see `Output`.

    Args:
        path: made where it is missing.
        settings: what decides the answers: `instructions`, and other keys of a result with their values.

    Raises:
        DataError: another process writes it, or it holds other settings' answers or no answers.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self._file = path.open("ab+")
        try:
            # Not `lockf`, whose lock goes when this process closes the file anywhere, as after reading it.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self._file.close()
            raise DataError(f"another process writes {path}: wait for it, or name another output") from None
        self.kept: dict[str, str | None] = {}
        compared = False
        end = 0
        self._file.seek(0)
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            kept = _read(line, path)
            self.kept[kept["name"]] = kept.get("error")
            if not compared and "results" in kept:
                _compare(kept["results"], settings, path)
                compared = True
            end += len(line)
        self._file.truncate(end)

    def write(self, answer: Answer) -> None:
        """Adds a line. A full disk leaves half of it, which the next run cuts off."""
        with named(self.path):
            self._file.write(json.dumps(answer.line(), allow_nan=False).encode() + b"\n")
            self._file.flush()
        self.kept[answer.name] = answer.error

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file, and lets others write it; what a full disk did not take is tried once more."""
        with named(self.path):
            self._file.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The lines so far; can be gone through again."""
        return iter_lines(self.path)


def iter_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file."""
    with path.open("rb") as file:
        for line in file:
            yield _read(line, path)


def _read(line: bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise DataError(f"{path} holds something else than answers: name another file, or remove it first")
    return found


def _compare(results: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], path: Path) -> None:
    kept = {"instructions": [result["instruction"] for result in results]}
    kept |= {key: results[0][key] for key in settings if key != "instructions"}
    for key, value in settings.items():
        if kept[key] != value:
            raise DataError(
                f"{path} holds answers of another run ({key} {kept[key]!r} against {value!r}): name another "
                "output"
            )
