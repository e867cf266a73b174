"""Asks a model every instruction of an annotated data set and compares the masks.

The protocol is SAM3-I's: the first instruction of each list, instances above the model's threshold, masks
OR-merged per record. Beyond it: a right "nothing here" is counted as right, and instances are scored by cgF1.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.annotations import Record
from sam3i_edge.errors import DataError
from sam3i_edge.evaluate.cgf1 import match_pair
from sam3i_edge.evaluate.metrics import Masks, overlap
from sam3i_edge.evaluate.report import UNSTATED, Outcome, Report, summarise
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.runtimes import Progress

LevelChoice = Literal["concept", "simple", "complex", "auto"]


class Found(Protocol):
    """What a model returns for one instruction; `sam3i_edge.Result` is one."""

    @property
    def level(self) -> Level:
        """The level that the instruction ran at."""

    @property
    def threshold(self) -> float:
        """Score above which instances were kept."""

    @property
    def presence(self) -> float:
        """Probability that there is anything to find."""

    @property
    def masks(self) -> NDArray[np.bool_]:
        """[N, H, W] bool, at the size of the picture."""


class EncodedImage(Protocol):
    """A picture that can be asked often; `sam3i_edge.Scene` is one."""

    def segment(self, instruction: str, *, level: LevelChoice, threshold: float | None) -> Found:
        """Answers one instruction; a threshold of None leaves the model's own."""


class Model(Protocol):
    """What can be evaluated; `sam3i_edge.Segmenter` is one."""

    def encode(self, image: Path) -> EncodedImage:
        """Reads and encodes one picture."""


class Options(TypedDict, total=False):
    """What may be set of an evaluation; see `evaluate`."""

    threshold: float | None
    choose_level: bool
    limit: int | None
    progress: Progress | None
    conditions: Mapping[str, str] | None


def evaluate(
    model: Model,
    records: Iterable[Record],
    images: Path,
    *,
    threshold: float | None = None,
    choose_level: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
    conditions: Mapping[str, str] | None = None,
) -> Report:
    """Runs `model` over annotation records and reports how good its masks are.

    Records that share a picture are asked together, so that it is encoded once. The concept column is asked
    only where the record's targets are all instances of the concept: granularity "all", "none" or unstated.
    Dense masks live for one pair at a time.

    Args:
        model: a Segmenter, or anything with its `encode`.
        records: SAM3-I annotation records.
        images: the folder that their file names are relative to.
        threshold: keep instances with a greater score, 0 to 1; None leaves the model's own.
        choose_level: let the model choose the level, as users do without `level=`, and report how often it
            picks that of the column. Otherwise every instruction runs at the level of its column.
        limit: evaluate the first so many pictures only.
        progress: called after each picture.
        conditions: what ran on what, copied into the report.

    Raises:
        ValueError: `limit` is below 1.
        DataError: no record has an instruction, a picture is missing, or its size differs from its record's.
    """
    by_picture = _pictures(records, images, limit)
    outcomes: list[Outcome] = []
    encode_ms: list[float] = []
    instruction_ms: list[float] = []
    used_threshold = 0.0
    for done, (file_name, group) in enumerate(by_picture.items(), start=1):
        started = time.perf_counter()
        picture = model.encode(images / file_name)
        encode_ms.append((time.perf_counter() - started) * 1e3)
        for record in group:
            target = record.masks()
            for level, instruction in _questions(record):
                started = time.perf_counter()
                found = picture.segment(
                    instruction, level="auto" if choose_level else level, threshold=threshold
                )
                # Masks are decoded lazily: without this the time would leave out what every user waits for.
                masks = found.masks
                instruction_ms.append((time.perf_counter() - started) * 1e3)
                used_threshold = found.threshold
                outcomes.append(_compare(record, level, instruction, found, masks, target))
        if progress is not None:
            progress(f"picture {done:,} of {len(by_picture):,}", done / len(by_picture))
    return summarise(
        outcomes,
        threshold=used_threshold,
        encode_ms=encode_ms,
        instruction_ms=instruction_ms,
        model_chose_level=choose_level,
        conditions=conditions or {},
    )


def _pictures(records: Iterable[Record], images: Path, limit: int | None) -> dict[str, list[Record]]:
    """Records with something to ask, by file name, in the order of first appearance."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 picture, got {limit}")
    by_picture: dict[str, list[Record]] = {}
    for record in records:
        if any(True for _ in _questions(record)):
            by_picture.setdefault(record.file_name, []).append(record)
    if not by_picture:
        raise DataError(
            "no record has an instruction to evaluate: give a SAM3-I annotation file whose images carry "
            "text_inst_input with concept, simple_query or complex_query"
        )
    kept = dict(list(by_picture.items())[:limit])
    # Found now, not after an hour.
    missing = [name for name in kept if not (images / name).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(kept)} pictures are missing, the first is {images / missing[0]}: "
            "put the pictures where the annotation file names them"
        )
    return kept


def _questions(record: Record) -> Iterator[tuple[Level, str]]:
    texts: dict[Level, Sequence[str]] = {
        "concept": record.concept if record.granularity in ("all", "none", None) else (),
        "simple": record.simple,
        "complex": record.complex,
    }
    for level in LEVELS:
        if texts[level]:
            yield level, texts[level][0]


def _compare(
    record: Record, level: Level, instruction: str, found: Found, masks: Masks, target: Masks
) -> Outcome:
    if masks.shape[1:] != target.shape[1:]:
        raise DataError(
            f"{record.file_name} is {masks.shape[1]} x {masks.shape[2]} pixels (height x width) but record "
            f"{record.image_id} says {target.shape[1]} x {target.shape[2]}: correct the annotation file"
        )
    return Outcome(
        image_id=record.image_id,
        file_name=record.file_name,
        instruction=instruction,
        level=level,
        level_used=found.level,
        granularity=record.granularity or UNSTATED,
        presence=found.presence,
        overlap=overlap(masks, target),
        match=match_pair(masks, target),
    )
