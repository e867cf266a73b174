"""Pairs for stage 3: a simple and a complex instruction for the same targets of a scene, and their noun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from sam3i_edge.data.families import TRAINED
from sam3i_edge.data.instructions import Granularity, Instruction, write_instruction
from sam3i_edge.data.records import noun_of
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.levels import Level

# What is looked for, as often as among single instructions; pairs for a subset are found more seldom.
_GRANULARITIES: Final[tuple[Granularity, ...]] = ("one", "subset", "all")
_FREQUENCIES: Final = (0.45, 0.2, 0.35)
_LEVELS: Final[tuple[Level, ...]] = ("simple", "complex")
_WANTS: Final = 6  # of a pair, before the scene is given up
_TRIES: Final = 12  # of a granularity: with 12, nine of ten scenes had a pair at the first


@dataclass(frozen=True, slots=True)
class LevelPair:
    """Two instructions with one answer.

    Attributes:
        simple: with the noun.
        complex: without it; the targets are those of `simple`, at least one.
        concept: the targets' noun ("star"), which may have more instances; "shape" or the like for several.
    """

    simple: Instruction
    complex: Instruction
    concept: str


def write_pairs(
    scene: Scene,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    count: int,
    wordings: Mapping[str, float] = TRAINED,
) -> tuple[LevelPair, ...] | None:
    """Writes `count` pairs for a scene, each for other targets; None where it gave no occasion for so many.

    Args:
        scene: what they speak of.
        vocabulary: its words.
        rng: decides; the same state writes the same pairs.
        count: how many, from 0.
        wordings: as in `write_instruction`.
    """
    pairs: dict[tuple[int, ...], LevelPair] = {}
    for _ in range(_WANTS * count):
        if len(pairs) == count:
            break
        want = _GRANULARITIES[rng.choice(len(_GRANULARITIES), p=_FREQUENCIES)]
        pair = _pair(scene, vocabulary, rng, want, wordings)
        if pair is not None:
            pairs.setdefault(pair.simple.targets, pair)
    return tuple(pairs.values()) if len(pairs) == count else None


def _pair(
    scene: Scene,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    want: Granularity,
    wordings: Mapping[str, float],
) -> LevelPair | None:
    """Writes at both levels in turn until two have the same targets."""
    written: dict[Level, dict[tuple[int, ...], Instruction]] = {level: {} for level in _LEVELS}
    for _ in range(_TRIES):
        for level in _LEVELS:
            found = write_instruction(scene, vocabulary, rng, level, want, wordings=wordings)
            if found is None:
                return None
            written[level].setdefault(found.targets, found)
            if all(found.targets in texts for texts in written.values()):
                simple, complex_ = (written[name][found.targets] for name in _LEVELS)
                return LevelPair(simple, complex_, noun_of(scene, vocabulary, found.targets))
    return None
