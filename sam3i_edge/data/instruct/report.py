"""What a run wrote, counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from sam3i_edge.data.sources.source import Note
from sam3i_edge.errors import DataError
from sam3i_edge.files import write_whole

REPORT: Final = "report.json"
_NAMED: Final = 3  # examples of what was left out


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructReport:
    """Counts of a run.

    Attributes:
        settings: what decided it: the content of source and vocabulary, levels, numbers, seed.
        pictures: with at least one instruction.
        instructions: proven ones.
        review: ones that wait for a person's decision.
        level, granularity, form, family: instructions by each; by form, "" are those of the source itself.
        waiting: ones that a language model has not answered for; the same command goes on with them.
        dropped: why others were not kept, and how many.
        notes: what the source left out or the vocabulary does not know, a sentence each.
        left_out: pictures that could not be used and why, the first three. left_out_count: how many.
    """

    settings: Mapping[str, Any]
    pictures: int = 0
    instructions: int = 0
    review: int = 0
    waiting: int = 0
    level: Mapping[str, int] = field(default_factory=dict)
    granularity: Mapping[str, int] = field(default_factory=dict)
    form: Mapping[str, int] = field(default_factory=dict)
    family: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    left_out: Sequence[str] = ()
    left_out_count: int = 0

    def write(self, path: Path) -> None:
        """Writes it as JSON, whole."""
        write_whole(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> InstructReport:
        """The inverse of `write`.

        Raises:
            DataError: the file is damaged.
        """
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except ValidationError as error:
            raise DataError(f"{path} is no report of 'sam3i-edge instruct'; name another folder") from error

    def rows(self) -> Iterator[tuple[str, str, int]]:
        """(kind, name, count) of everything that is counted, the most frequent first."""
        for kind in ("level", "granularity", "form", "family", "dropped"):
            for name, count in getattr(self, kind).items():
                yield kind, name or "of the source", count


def summed(
    entries: Iterable[Mapping[str, Any]], settings: Mapping[str, Any], notes: Sequence[Note]
) -> InstructReport:
    """The report of the pictures' entries; see `shards._line`."""
    counts: tuple[Counter[str], ...] = (Counter(), Counter(), Counter(), Counter())
    dropped: Counter[str] = Counter()
    pictures = review = waiting = left_out_count = 0
    left_out: list[str] = []
    for entry in entries:
        if entry["left_out"] is not None:
            left_out_count += 1
            left_out += [entry["left_out"]] if len(left_out) < _NAMED else []
            continue
        pictures += bool(entry["texts"])
        review += len(entry["review"])
        waiting += entry["waiting"]
        dropped.update(entry["dropped"])
        for text in entry["texts"]:
            for counter, value in zip(counts, text, strict=True):
                counter[value] += 1
    level, granularity, form, family = (_ordered(counter) for counter in counts)
    return InstructReport(
        settings=settings,
        pictures=pictures,
        instructions=counts[0].total(),
        review=review,
        waiting=waiting,
        level=level,
        granularity=granularity,
        form=form,
        family=family,
        dropped=_ordered(dropped),
        notes=[str(note) for note in notes],
        left_out=left_out,
        left_out_count=left_out_count,
    )


def _ordered(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))
