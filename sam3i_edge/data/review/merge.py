"""Accepted and mended items into the folder's annotations, as records of their own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sam3i_edge.data.annotations import (
    ANNOTATIONS,
    IMAGES,
    Annotation,
    Record,
    read_annotations,
    write_annotations,
)
from sam3i_edge.data.instructions import Granularity
from sam3i_edge.data.review.decisions import Decision, read_decisions, reviewing
from sam3i_edge.data.review.queue import ReviewItem, read_queue
from sam3i_edge.errors import DataError
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.masks import rle


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply_decisions` did.

    Attributes:
        accepted: items that are records now, as they were.
        mended: likewise, with another text or other targets.
        rejected: items that were not taken.
        undecided: items that nobody has decided.
        problems: lines of the two files that were skipped, and why.
    """

    accepted: int
    mended: int
    rejected: int
    undecided: int
    problems: tuple[str, ...]


def apply_decisions(folder: str | Path) -> Applied:
    """Puts accepted and mended items into FOLDER/annotations.json, which is replaced whole.

    A record keeps the number that its item's id gives it, so a second call adds nothing twice, and takes out
    what was undone or rejected since.

    Raises:
        DataError: a server holds the folder, or a file is missing or breaks its layout.
        OSError: a file cannot be read or written; the annotations stay as they were.
    """
    folder = Path(folder)
    queue = read_queue(folder)
    with reviewing(folder):
        decided = read_decisions(folder, queue.items)
        records = read_annotations(folder / ANNOTATIONS)
        numbers = {image_id(identity): item for identity, item in queue.items.items()}
        if len(numbers) < len(queue.items):
            raise DataError(f"{folder}: two items have the same number; change the id of one")
        records = [record for record in records if record.image_id not in numbers]
        standing = decided.standing
        next_id = 1 + max(
            (a.id for record in records for a in record.annotations if isinstance(a.id, int)), default=0
        )
        for item in queue.items.values():
            decision = standing.get(item.id)
            if decision is not None and decision.decision != "reject":
                records.append(_record(item, decision, next_id))
                next_id += len(decision.targets)
        write_annotations(folder / ANNOTATIONS, records)
    kinds = [decision.decision for decision in standing.values()]
    return Applied(
        accepted=kinds.count("accept"),
        mended=kinds.count("mend"),
        rejected=kinds.count("reject"),
        undecided=len(queue.items) - len(standing),
        problems=(*queue.problems, *decided.problems),
    )


def image_id(identity: str) -> int:
    """The image id of an item's record: 52 bits of its id, which a float holds too, as in JavaScript."""
    return int(hashlib.sha256(identity.encode()).hexdigest()[:13], 16)


def _record(item: ReviewItem, decision: Decision, first_id: int) -> Record:
    texts: dict[Level, list[str]] = {level: [] for level in LEVELS}
    texts[item.level] = [decision.text or item.text]
    return Record(
        image_id=image_id(item.id),
        file_name=item.file.removeprefix(f"{IMAGES}/"),
        width=item.size[1],
        height=item.size[0],
        granularity=_granularity(item, decision),
        annotations=tuple(
            Annotation(id=number, category="", bbox=rle.box(mask), segmentation=mask)
            for number, mask in enumerate((mask.model_dump() for mask in decision.targets), start=first_id)
        ),
        concept=texts["concept"],
        simple=texts["simple"],
        complex=texts["complex"],
    )


def _granularity(item: ReviewItem, decision: Decision) -> Granularity | None:
    """The item's, or what other targets make of it: of two or more nobody knows whether they are all."""
    if decision.targets == item.targets:
        return item.granularity
    by_count: dict[int, Granularity] = {0: "none", 1: "one"}
    return by_count.get(len(decision.targets))
