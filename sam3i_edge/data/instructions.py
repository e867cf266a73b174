"""Instructions for a scene, after SAM3-I's taxonomy, each with exactly one right answer.

Levels:
    concept: a noun phrase, every instance meant ("star", "red circles").
    simple: names the noun and narrows it ("the red star left of the ring", "every large square").
    complex: the noun is absent; property, function or reasoning ("the one with a hole", "the odd one out").

Granularity, by what the phrase names and selects (the first three are SAM3-I's 1to1, 1toN and 1toAll):
    one: exactly one target, chosen by attributes, position or relation ("the red star").
    subset: two or more targets, but not every member of the class named ("all circles except the green one").
    all: every member of the class as named, its attributes included ("red circles", "every large square").
        At the concept level and after "every" this holds for a single member too.
    none: a well-formed phrase that nothing in the scene fits, mostly a near miss ("the blue star" where the
        only star is red).

SAM3-I also asks for parts ("the handle of the mug"); a scene knows no parts, so none are asked for.

An instruction is written only where `truth` has a certain answer; `geometry` holds the margins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

import numpy as np

from sam3i_edge.data import reasoning, selections
from sam3i_edge.data.families import FAMILIES, USUAL, worded
from sam3i_edge.data.geometry import View, view_of
from sam3i_edge.data.heads import (
    Ask,
    HeadMaker,
    ReferenceMaker,
    bare_head,
    noun_head,
    noun_reference,
    riddle_head,
    riddle_reference,
    thing_head,
)
from sam3i_edge.data.query import Query
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.selections import Kind
from sam3i_edge.data.truth import Answer, Granularity
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.data.wording import phrase_of
from sam3i_edge.levels import Level, as_level

__all__ = ["GRANULARITIES", "Granularity", "Instruction", "unproven", "write_instruction"]

GRANULARITIES: Final[tuple[Granularity, ...]] = ("one", "subset", "all", "none")


@dataclass(frozen=True, slots=True)
class Instruction:
    """A text and its answer.

    Attributes:
        text: what a person would type.
        level: "concept", "simple" or "complex".
        granularity: "one", "subset", "all" or "none".
        targets: indices into the scene's objects, ascending; empty for "none".
        form: what is asked: "whole", "relation", "size", "function", …; "" where it was read from a file.
        family: of its wording, one of `families.FAMILIES`; "" likewise.
        why: what makes the targets a guess; "" where they are certain.
        query: its meaning, None where it was read from a file.
    """

    text: str
    level: Level
    granularity: Granularity
    targets: tuple[int, ...]
    form: str = ""
    family: str = ""
    why: str = ""
    query: Query | None = field(default=None, repr=False)


# Weight, kind, the granularities it can have, and what it selects with.
_Row = tuple[float, Kind, tuple[Granularity, ...], HeadMaker, ReferenceMaker]

_ANY: Final[tuple[Granularity, ...]] = GRANULARITIES
_ONE: Final[tuple[Granularity, ...]] = ("one", "none")
_PART: Final[tuple[Granularity, ...]] = ("one", "subset", "none")
_ONE_ALL: Final[tuple[Granularity, ...]] = ("one", "all", "none")


def _concept(ask: Ask) -> Query | None:
    head = ask.make_head()
    return None if head is None else Query(form="concept", head=head, universal=True)


_KINDS: Final[dict[Level, tuple[_Row, ...]]] = {
    "concept": ((1.0, _concept, _ONE_ALL, noun_head, noun_reference),),
    "simple": (
        (3.0, selections.whole, _ONE_ALL, noun_head, noun_reference),
        (7.0, selections.by_relation, _ANY, noun_head, noun_reference),
        (9.0, selections.by_known_relation, _ANY, noun_head, noun_reference),
        (2.0, selections.by_region, _ANY, noun_head, noun_reference),
        (2.0, selections.by_edge, _PART, noun_head, noun_reference),
        (2.0, selections.by_distance, _ONE, noun_head, noun_reference),
        (2.0, selections.by_depth, _ONE, noun_head, noun_reference),
        (1.6, selections.by_size, _ONE, noun_head, noun_reference),
        (1.4, selections.by_exception, _PART, noun_head, noun_reference),
        (0.8, selections.by_comparison, _ANY, noun_head, noun_reference),
        (1.2, selections.by_between, _ANY, noun_head, noun_reference),
        (0.8, selections.by_order, _ONE, noun_head, noun_reference),
        (0.7, selections.by_likeness, _ANY, noun_head, noun_reference),
        (0.4, selections.by_late_attribute, _ANY, bare_head, noun_reference),
    ),
    "complex": (
        (6.0, selections.whole, _ONE_ALL, riddle_head, riddle_reference),
        (2.2, selections.by_relation, _ANY, thing_head, riddle_reference),
        (1.0, selections.by_relation, _ANY, riddle_head, riddle_reference),
        (0.6, selections.by_relation, _ANY, thing_head, noun_reference),
        (2.0, selections.by_known_relation, _ANY, thing_head, riddle_reference),
        (2.0, selections.by_known_relation, _ANY, riddle_head, riddle_reference),
        (1.0, selections.by_known_relation, _ANY, thing_head, noun_reference),
        (1.0, selections.by_region, _ANY, riddle_head, riddle_reference),
        (0.8, selections.by_region, _ANY, thing_head, riddle_reference),
        (1.0, selections.by_edge, _PART, riddle_head, riddle_reference),
        (0.8, selections.by_edge, _PART, thing_head, riddle_reference),
        (0.8, selections.by_depth, _ONE, riddle_head, riddle_reference),
        (0.8, selections.by_depth, _ONE, thing_head, riddle_reference),
        (0.8, selections.by_size, _ONE, riddle_head, riddle_reference),
        (2.2, selections.by_size, _ONE, thing_head, riddle_reference),
        (0.7, selections.by_distance, _ONE, thing_head, riddle_reference),
        (0.5, selections.by_distance, _ONE, riddle_head, riddle_reference),
        (0.5, selections.by_comparison, _ANY, thing_head, riddle_reference),
        (0.6, selections.by_exception, _PART, thing_head, riddle_reference),
        (0.4, selections.by_between, _ANY, thing_head, riddle_reference),
        (0.5, selections.by_order, _ONE, thing_head, riddle_reference),
        (1.0, selections.by_likeness, _ANY, thing_head, riddle_reference),
        (1.6, reasoning.negation, _PART, thing_head, riddle_reference),
        (3.5, reasoning.odd_one_out, _ONE, thing_head, riddle_reference),
        (0.9, reasoning.matching_pair, _PART, thing_head, riddle_reference),
    ),
}
_MIX: Final[dict[Level, dict[Granularity, float]]] = {  # asked for where the caller names no granularity
    "concept": {"all": 0.81, "none": 0.19},
    "simple": {"one": 0.46, "subset": 0.16, "all": 0.2, "none": 0.18},
    "complex": {"one": 0.46, "subset": 0.18, "all": 0.18, "none": 0.18},
}
_TRIES: Final[dict[Level, int]] = {"concept": 80, "simple": 8, "complex": 8}  # of each kind


def write_instruction(
    scene: Scene,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    level: Level,
    granularity: Granularity | None = None,
    *,
    wordings: Mapping[str, float] = USUAL,
) -> Instruction | None:
    """Writes one instruction that has a certain answer in the scene.

    Args:
        scene: what it speaks of.
        vocabulary: its words.
        rng: decides; the same state writes the same instruction.
        level: "concept", "simple" or "complex".
        granularity: how much to ask for; None mixes them, "none" in about a sixth.
        wordings: relative frequency of the families of `families.FAMILIES`; one that cannot say what was
            drawn gives way to another.

    Returns:
        The instruction, or None where the scene gave no occasion (always for concept with "one" or "subset").

    Raises:
        ValueError: an unknown level, granularity or family.
    """
    as_level(level)
    if unknown := sorted(set(wordings) - set(FAMILIES)):
        raise ValueError(f"unknown wordings {', '.join(unknown)}; choose from {', '.join(FAMILIES)}")
    if granularity is not None and granularity not in GRANULARITIES:
        raise ValueError(
            f"unknown granularity {granularity!r}; choose from {', '.join(GRANULARITIES)}, or None"
        )
    random = Random(int(rng.integers(2**63)))
    return _written(view_of(scene), vocabulary, random, level, granularity, wordings, certain=True)


def unproven(
    scene: Scene, vocabulary: Vocabulary, rng: np.random.Generator, level: Level
) -> Instruction | None:
    """Writes one likewise, of which the scene does not say for certain what it means.

    Its targets are what is likely, and `why` says what is not known; a person has to decide. None where
    the scene leaves nothing open, or gave no occasion.
    """
    as_level(level)
    random = Random(int(rng.integers(2**63)))
    return _written(view_of(scene), vocabulary, random, level, None, USUAL, certain=False)


def _written(
    view: View,
    vocabulary: Vocabulary,
    random: Random,
    level: Level,
    granularity: Granularity | None,
    wordings: Mapping[str, float],
    *,
    certain: bool,
) -> Instruction | None:
    mix = _MIX[level]
    wants = [granularity] if granularity is not None else random.choices(list(mix), list(mix.values()))
    if granularity is None:  # a scene of one object has no subset: take what it has
        wants += [other for other in random.sample(list(mix), len(mix)) if other not in (*wants, "none")]
    for want in wants:
        drawn = _drawn(view, vocabulary, random, level, want, certain)
        if drawn is not None:
            query, found = drawn
            text, family = worded(phrase_of(query, found, vocabulary, random), random, wordings)
            text = _polished(text, level, random)
            return Instruction(text, level, want, found.targets, query.form, family, found.why, query)
    return None


def _drawn(
    view: View, vocabulary: Vocabulary, random: Random, level: Level, want: Granularity, certain: bool
) -> tuple[Query, Answer] | None:
    if want not in _MIX[level] or (want == "subset" and len(view.objects) < 3):
        return None
    # A weighted order of all kinds (Efraimidis and Spirakis 2006): none is missed, none is tried twice.
    rows = [row for row in _KINDS[level] if want in row[2] and _has_occasion(row, view, certain)]
    rows.sort(key=lambda row: random.random() ** (1 / row[0]), reverse=True)
    for _, kind, _, head, reference in rows:
        ask = Ask(view, vocabulary, random, want, certain, head, reference)
        # A relation is clear more seldom than a colour: let it try more than once.
        for _ in range(_TRIES[level]):
            query = kind(ask)
            found = None if query is None else ask.answer(query)
            if query is None or found is None or bool(found.why) == certain:
                continue
            if found.granularity(query.universal) == want:
                return query, found
    return None


def _has_occasion(row: _Row, view: View, certain: bool) -> bool:
    """Whether the scene knows what a kind speaks of."""
    _, kind, _, head, _ = row
    if certain and not view.scene.complete and head in (thing_head, riddle_head):
        return False
    if kind is selections.by_known_relation:
        return any(item.relations for item in view.objects)
    return kind is not selections.by_depth or any(item.depth is not None for item in view.objects)


def _polished(text: str, level: Level, random: Random) -> str:
    """As people type: at times with capitals or a full stop."""
    if level != "concept" and random.random() < 0.06 and not text.endswith("?"):
        text += "."
    case = random.random()
    return text.upper() if case < 0.02 else text[0].upper() + text[1:] if case < 0.14 else text
