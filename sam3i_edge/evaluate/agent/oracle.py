"""A reasoner by rule that knows the answers: with it the agent is as good as the concept level lets it be.

It says the names that the annotations have of the targets, and chooses the masks that cover them best. At a
set rate it errs: it names other things of the picture, and takes a mask that it should not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.records import Record
from sam3i_edge.evaluate.agent.loop import Candidate, Choice, Question
from sam3i_edge.evaluate.metrics import overlap
from sam3i_edge.masks.iou import mask_iou

_FOUND: Final = 0.5  # mask IoU of a target with a candidate


class Oracle:
    """Reasons about the questions of records."""

    def __init__(
        self, records: Iterable[Record], images: Path, *, errors: float = 0.0, seed: int = 0
    ) -> None:
        """Reads the records.

        Args:
            records: whose questions will be asked; no picture may have two of the same words.
            images: the folder that their file names are relative to.
            errors: share of its answers that are wrong, 0 to 1. The same question errs in the same way.
            seed: decides which.

        Raises:
            ValueError: `errors` is not 0 to 1.
        """
        if not 0 <= errors <= 1:
            raise ValueError(f"errors must be a share, 0 to 1, got {errors}")
        self._errors, self._seed = errors, seed
        self._asked: dict[tuple[Path, str], Record] = {}
        self._of_picture: dict[Path, list[Record]] = defaultdict(list)
        for record in records:
            file = images / record.file_name
            self._of_picture[file].append(record)
            for text in (*record.concept, *record.simple, *record.complex):
                self._asked.setdefault((file, text), record)

    def phrases(self, question: Question, tried: Mapping[str, int]) -> list[str]:
        """See `Reasoner.phrases`: names of the targets first, then other noun phrases for them."""
        names, others = self._names(question)
        if self._errs(question):
            names = others
        return [name for name in names if name not in tried]

    def choose(self, question: Question, candidates: Sequence[Candidate]) -> Choice:
        """See `Reasoner.choose`."""
        targets = self._record(question).masks()
        right = _best(targets, [candidate.mask for candidate in candidates])
        if self._errs(question):
            wrong = [place for place in range(len(candidates)) if place not in right]
            return Choice((self._random(question).choice(wrong),) if wrong else (), again=False)
        if not len(targets):
            return Choice((), again=False)
        ious = mask_iou(targets, np.stack([candidate.mask for candidate in candidates]))
        return Choice(right, again=bool((ious.max(axis=1) < _FOUND).any()))

    def _record(self, question: Question) -> Record:
        return self._asked[question.file, question.instruction]

    def _names(self, question: Question) -> tuple[list[str], list[str]]:
        """Noun phrases for the targets, and those for other things of the picture."""
        record = self._record(question)
        wanted = {repr(annotation.segmentation) for annotation in record.annotations}
        names: dict[str, None] = {}
        phrases: dict[str, None] = {}
        others: dict[str, None] = {}
        for one in self._of_picture[question.file]:
            hits = 0
            for annotation in one.annotations:
                hit = repr(annotation.segmentation) in wanted
                hits += hit
                if annotation.category:
                    (names if hit else others)[annotation.category] = None
            if hits:
                phrases |= dict.fromkeys(one.concept)
        right = names | phrases
        return list(right), [name for name in others if name not in right]

    def _errs(self, question: Question) -> bool:
        """Counts an answer, and says whether it is a wrong one."""
        question.bill.calls += 1
        return self._random(question).random() < self._errors

    def _random(self, question: Question) -> Random:
        return Random(f"{self._seed} {question.file.name} {question.instruction} {question.bill.calls}")


def _best(targets: NDArray[np.bool_], masks: Sequence[NDArray[np.bool_]]) -> tuple[int, ...]:
    """The masks whose union has the highest IoU with the targets'; greedy, those that lie in them first."""
    wanted = np.asarray(targets.any(axis=0), np.bool_)
    inside = [np.count_nonzero(mask & wanted) / np.count_nonzero(mask) for mask in masks]
    taken: list[int] = []
    union: NDArray[np.bool_] = np.zeros_like(wanted)
    best = 0.0
    for place in sorted(range(len(masks)), key=lambda place: -inside[place]):
        joined: NDArray[np.bool_] = union | masks[place]
        iou = overlap(joined, wanted).iou()
        if iou > best:
            taken, union, best = [*taken, place], joined, iou
    return tuple(sorted(taken))
