"""What a person decided: `decisions.jsonl`, a line for every click, never rewritten.

The last line of an item counts. A line "undo" takes back the last one of its item that stands.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, Literal

from pydantic import model_validator

from sam3i_edge.data.review.lines import Line, Mask, read_lines
from sam3i_edge.data.review.queue import ReviewItem, Words
from sam3i_edge.errors import DataError

DECISIONS: Final = "decisions.jsonl"
_LOCK: Final = ".review.lock"


class Decision(Line):
    """A line.

    Attributes:
        id: the item's.
        decision: "accept", "mend", "reject", or "undo".
        text: what the instruction says now; None for "reject" and "undo".
        targets: its masks now, compressed; none for "reject" and "undo".
        time: when, ISO 8601.
    """

    id: str
    decision: Literal["accept", "mend", "reject", "undo"]
    text: Words | None = None
    targets: tuple[Mask, ...] = ()
    time: datetime

    @model_validator(mode="after")
    def _complete(self) -> Decision:
        if self.decision in ("accept", "mend") and self.text is None:
            raise ValueError(f"{self.decision!r} needs a text")
        return self


@dataclass(slots=True)
class Decided:
    """What stands, after the lines so far.

    Attributes:
        order: decisions that stand, or that a later one of the same item replaced, oldest first.
        problems: what is wrong with the lines that were skipped.
    """

    order: list[Decision] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def standing(self) -> dict[str, Decision]:
        """The decision that counts, by the item's id."""
        return {decision.id: decision for decision in self.order}

    def add(self, line: Decision) -> None:
        """Takes a line in, which may undo another; one that undoes nothing changes nothing."""
        if line.decision != "undo":
            self.order.append(line)
            return
        places = [place for place, decision in enumerate(self.order) if decision.id == line.id]
        if places:
            del self.order[places[-1]]


def read_decisions(folder: Path, items: Mapping[str, ReviewItem]) -> Decided:
    """Reads FOLDER/decisions.jsonl; where there is none, nothing is decided.

    Args:
        folder: the folder under review.
        items: by id; lines about others are skipped and named, as are masks of another size.

    Raises:
        OSError: the file is there and cannot be read.
    """
    path = folder / DECISIONS
    if not path.exists():
        return Decided()
    lines, problems = read_lines(path, Decision)
    decided = Decided(problems=problems)
    for number, line in lines:
        item = items.get(line.id)
        if item is None:
            problems.append(f"{DECISIONS}, line {number}: no item has the id {line.id!r}")
        elif any(tuple(mask.size) != item.size for mask in line.targets):
            problems.append(f"{DECISIONS}, line {number}: a mask has another size than the picture")
        else:
            decided.add(line)
    return decided


def append_decision(folder: Path, line: Decision) -> None:
    """Writes a line to FOLDER/decisions.jsonl and waits until the disk has it.

    A line that an editor or a full disk left without its end stays as it is; this one begins on its own.

    Raises:
        OSError: it cannot be written.
    """
    text = line.model_dump_json(exclude_none=True).encode() + b"\n"
    with (folder / DECISIONS).open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                text = b"\n" + text
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def now() -> datetime:
    """The time for a line, in seconds, UTC."""
    return datetime.now(timezone.utc).replace(microsecond=0)


@contextlib.contextmanager
def reviewing(folder: Path) -> Iterator[None]:
    """Holds a folder for one review, until the block or the process ends, however that ends.

    Raises:
        DataError: another process or server holds it.
        OSError: the folder cannot be written.
    """
    with (folder / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise DataError(
                f"{folder} is under review already, by process {file.read().strip() or 'unknown'}: use its "
                "page, or end it"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
