"""What an evaluation found: figures by level and granularity, as an object, as JSON and as text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from sam3i_edge.evaluate.cgf1 import CgF1, PairMatch, cgf1
from sam3i_edge.evaluate.metrics import Overlap, cumulative_iou, mean_iou, precision_at
from sam3i_edge.levels import LEVELS, Level

OVERALL = "overall"
UNSTATED = "unstated"
_GRANULARITIES = ("one", "subset", "all", "none", UNSTATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One (image, instruction) pair, asked and compared.

    Attributes:
        image_id: id of the annotation record.
        file_name: its picture.
        instruction: what was asked.
        level: the column of the annotation file that the instruction stands in.
        level_used: the level that the model ran at; another one only where the model chose.
        granularity: "one", "subset", "all", "none", or "unstated" where the file does not tell.
        presence: probability that there is anything to find, 0 to 1.
        overlap: merged prediction against merged target.
        match: the instances of both, matched one to one.
    """

    image_id: int | str
    file_name: str
    instruction: str
    level: Level
    level_used: Level
    granularity: str
    presence: float
    overlap: Overlap
    match: PairMatch

    @property
    def has_target(self) -> bool:
        """Whether there is anything to find."""
        return self.match.num_targets > 0

    @property
    def found_any(self) -> bool:
        """Whether the model returned an instance."""
        return self.match.num_predictions > 0

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values, with the merged IoU beside the counts it comes from."""
        return {**asdict(self), "iou": self.overlap.iou()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Figures of one level and granularity, or over all of either ("overall"); 0 to 1, None where undefined.

    Attributes:
        level: "concept", "simple", "complex" or "overall".
        granularity: "one", "subset", "all", "none", "unstated" or "overall".
        pairs: (image, instruction) pairs.
        pairs_with_target: those with something to find.
        giou: mean IoU of the merged masks, over pairs with a target.
        giou_with_none: the same over all pairs, where nothing found and nothing there counts 1 (as gRefCOCO
            does; the official SAM3-I scripts count 0).
        ciou: sum of intersections over sum of unions, over all pairs; masks found where nothing is enlarge
            the unions.
        p_at_50: share of the pairs with a target with IoU of at least 0.5.
        found_accuracy: share of the pairs where "returned an instance" equals "has a target".
        presence_accuracy: share of the pairs where "presence probability above 0.5" equals "has a target".
        none_accuracy: share of the pairs without a target where nothing was returned.
    """

    level: str
    granularity: str
    pairs: int
    pairs_with_target: int
    giou: float | None
    giou_with_none: float
    ciou: float | None
    p_at_50: float | None
    found_accuracy: float
    presence_accuracy: float
    none_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall-clock times of one step, in milliseconds.

    Attributes:
        count: how many were measured.
        median_ms: their median.
        p90_ms: their 90th percentile, interpolated.
    """

    count: int
    median_ms: float
    p90_ms: float

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Timing:
        """Summarises samples.

        Raises:
            ValueError: there is none.
        """
        if not samples_ms:
            raise ValueError("no time was measured: give at least one sample")
        return cls(len(samples_ms), float(np.median(samples_ms)), float(np.percentile(samples_ms, 90)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One evaluation, complete.

    Attributes:
        conditions: what ran on what (model, device, runtime, data …), as the caller names it.
        images: pictures encoded.
        threshold: instances with a greater score were kept.
        cells: figures by level and granularity, levels in order, "overall" last in each.
        cgf1: cgF1 with its parts by level, and "overall".
        routing: where the model chose the level: how often each column went to each level. Empty otherwise.
        encode: time to read and encode one picture.
        instruction: time from an instruction on an encoded picture to masks of the picture's size. A text
            that the model has met before may come from its cache.
        outcomes: every pair; left out of the JSON.
    """

    conditions: Mapping[str, str]
    images: int
    threshold: float
    cells: tuple[Cell, ...]
    cgf1: Mapping[str, CgF1]
    routing: Mapping[str, Mapping[str, int]]
    encode: Timing
    instruction: Timing
    outcomes: tuple[Outcome, ...] = field(repr=False)

    @property
    def routing_accuracy(self) -> float | None:
        """Share of the pairs that the model put at the level of their column; None where it was told."""
        if not self.routing:
            return None
        right = sum(chosen.get(column, 0) for column, chosen in self.routing.items())
        return right / sum(sum(chosen.values()) for chosen in self.routing.values())

    def cell(self, level: str = OVERALL, granularity: str = OVERALL) -> Cell:
        """The figures of one level and granularity.

        Raises:
            KeyError: the data has no such pair.
        """
        for cell in self.cells:
            if (cell.level, cell.granularity) == (level, granularity):
                return cell
        raise KeyError(f"no pair of level {level!r} and granularity {granularity!r} was evaluated")

    def to_dict(self) -> dict[str, object]:
        """All but `outcomes`, as plain JSON values."""
        return {
            "conditions": dict(self.conditions),
            "images": self.images,
            "threshold": self.threshold,
            "cells": [asdict(cell) for cell in self.cells],
            "cgf1": {level: figures.to_dict() for level, figures in self.cgf1.items()},
            "routing": {
                "accuracy": self.routing_accuracy,
                "chosen": {k: dict(v) for k, v in self.routing.items()},
            },
            "timings_ms": {"encode": asdict(self.encode), "instruction": asdict(self.instruction)},
        }

    def lines(self) -> Iterator[dict[str, object]]:
        """Every outcome, as plain JSON values."""
        return (outcome.to_dict() for outcome in self.outcomes)

    def to_json(self) -> str:
        """`to_dict` as one JSON object on one line."""
        return json.dumps(self.to_dict(), allow_nan=False)


def summarise(
    outcomes: Iterable[Outcome],
    *,
    threshold: float,
    encode_ms: Sequence[float],
    instruction_ms: Sequence[float],
    model_chose_level: bool,
    conditions: Mapping[str, str],
) -> Report:
    """Turns outcomes and times into a report.

    Args:
        outcomes: every pair asked.
        threshold: score above which instances were kept.
        encode_ms: one time for each picture.
        instruction_ms: one time for each pair.
        model_chose_level: whether `level_used` is the model's choice, to be reported.
        conditions: kept as they are.

    Raises:
        ValueError: there is no outcome.
    """
    kept = tuple(outcomes)
    if not kept:
        raise ValueError("no outcome to summarise: give at least one")
    by_level = {level: [o for o in kept if o.level == level] for level in LEVELS}
    groups: dict[str, Sequence[Outcome]] = {level: some for level, some in by_level.items() if some}
    groups[OVERALL] = kept
    cells = []
    for level, some in groups.items():
        for granularity in _GRANULARITIES:
            part = [o for o in some if o.granularity == granularity]
            if part:
                cells.append(_cell(level, granularity, part))
        cells.append(_cell(level, OVERALL, some))
    routing = {
        level: dict(Counter[str](o.level_used for o in some))
        for level, some in groups.items()
        if model_chose_level and level != OVERALL
    }
    return Report(
        conditions=dict(conditions),
        images=len(encode_ms),
        threshold=threshold,
        cells=tuple(cells),
        cgf1={level: cgf1(o.match for o in some) for level, some in groups.items()},
        routing=routing,
        encode=Timing.of(encode_ms),
        instruction=Timing.of(instruction_ms),
        outcomes=kept,
    )


def _cell(level: str, granularity: str, outcomes: Sequence[Outcome]) -> Cell:
    overlaps = [o.overlap for o in outcomes]
    targeted = [o.overlap for o in outcomes if o.has_target]
    silent = [not o.found_any for o in outcomes if not o.has_target]
    # A pair without a target is right when no instance came back: a kept instance with an empty mask is not.
    every = [o.overlap.iou() if o.has_target else float(not o.found_any) for o in outcomes]
    return Cell(
        level=level,
        granularity=granularity,
        pairs=len(outcomes),
        pairs_with_target=len(targeted),
        giou=mean_iou(targeted) if targeted else None,
        giou_with_none=float(np.mean(every)),
        ciou=cumulative_iou(overlaps) if targeted else None,
        p_at_50=precision_at(targeted) if targeted else None,
        found_accuracy=float(np.mean([o.found_any == o.has_target for o in outcomes])),
        presence_accuracy=float(np.mean([(o.presence > 0.5) == o.has_target for o in outcomes])),
        none_accuracy=float(np.mean(silent)) if silent else None,
    )
