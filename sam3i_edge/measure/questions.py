"""What the rows are asked: drawn pairs for the agreement, pictures with instructions for the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.annotations import ANNOTATIONS, Record, read_annotations
from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError
from sam3i_edge.levels import Level

if TYPE_CHECKING:
    from sam3i_edge.agreement import Pair

PICTURE = (480, 640)  # height, width: a camera's
QUESTIONS = 32
_PICTURES = 16
_CLOCK_SEED = (0xBE7C, 2026)
# The pairs that decide whether a variant is exported; 1 and 2 calibrate it.
_PAIRS_SEED = 0


@dataclass(frozen=True, slots=True)
class Question:
    """A picture uint8 [H, W, 3] and an instruction of a level."""

    image: NDArray[np.uint8]
    text: str
    level: Level


def questions(level: Level) -> list[Question]:
    """32 questions about 16 pictures of 640 x 480, neighbours about different ones."""
    scenes: list[tuple[NDArray[np.uint8], list[str]]] = []
    vocabulary = load_vocabulary("shapes")
    number = 0
    while len(scenes) < _PICTURES:
        rng = np.random.default_rng((*_CLOCK_SEED, number))
        number += 1
        scene = draw_scene(rng, PICTURE)
        texts = [write_instruction(scene, vocabulary, rng, level) for _ in range(6)]
        known = list(dict.fromkeys(one.text for one in texts if one is not None))
        if len(known) > 1:
            scenes.append((scene.pixels(), known))
    return [Question(image, texts[turn], level) for turn in (0, 1) for image, texts in scenes]


def gate_pairs(count: int, levels: Sequence[Level]) -> list[Pair]:
    """The pairs of some levels that the export's agreement gate asks first, and more of them."""
    from sam3i_edge.agreement import drawn_pairs

    drawn = count
    while True:
        found = [pair for pair in drawn_pairs(drawn, _PAIRS_SEED) if pair.level in levels]
        if len(found) >= count:
            return found[:count]
        drawn *= 2


def read_data(folder: Path) -> list[Record]:
    """Records of a data set to measure accuracy on.

    Raises:
        DataError: there is no annotation file, it is damaged, or no record of it has a mask.
    """
    records = read_annotations(folder / ANNOTATIONS)
    if not any(record.annotations for record in records):
        raise DataError(
            f"{folder / ANNOTATIONS} has {len(records)} records and no mask, so nothing says what is right: "
            "give a data set with masks, or leave --data out for drawn scenes"
        )
    return records


def at_level(records: Sequence[Record], level: Level) -> list[Record]:
    """The records with the instructions of one level alone; those without any are left out."""
    return [
        replace(
            record,
            concept=record.concept if level == "concept" else [],
            simple=record.simple if level == "simple" else [],
            complex=record.complex if level == "complex" else [],
        )
        for record in records
        if getattr(record, level)
    ]
