"""Instructions for a drawn scene, after SAM3-I's taxonomy, each with exactly one right answer.

Levels:
    concept: a noun phrase, every instance meant ("star", "red circles").
    simple: names the noun and narrows it ("the red star left of the ring", "every large square").
    complex: the noun is absent; property, function or reasoning ("the one with a hole", "the odd one out").

Granularity, by what the phrase names and what it selects:
    one: exactly one target, chosen by attributes, position or relation ("the red star").
    subset: two or more targets, but not every member of the class named ("all circles except the green one").
    all: every member of the class as named, its attributes included ("red circles", "every large square").
        At the concept level and after "every" this holds for a single member too.
    none: a well-formed phrase that nothing in the scene fits, mostly a near miss ("the blue star" where the
        only star is red).

A phrase is written only where it is beyond dispute; `geometry` holds the margins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np

from sam3i_edge.data import reasoning, selections
from sam3i_edge.data.asking import Ask, Draft, Granularity, Kind
from sam3i_edge.data.geometry import View
from sam3i_edge.data.heads import (
    HeadMaker,
    ReferenceMaker,
    noun_head,
    noun_reference,
    riddle_head,
    riddle_reference,
    shape_head,
    thing_head,
)
from sam3i_edge.data.scenes import DrawnScene, draw_scene
from sam3i_edge.data.wording import OPENINGS
from sam3i_edge.levels import LEVELS, Level, as_level

__all__ = ["GRANULARITIES", "Granularity", "Instruction", "corpus", "write_instruction"]

GRANULARITIES: Final[tuple[Granularity, ...]] = ("one", "subset", "all", "none")


@dataclass(frozen=True, slots=True)
class Instruction:
    """A phrase and its answer.

    Attributes:
        text: what a person would type.
        level: "concept", "simple" or "complex".
        granularity: "one", "subset", "all" or "none".
        targets: indices into the scene's objects, ascending; empty for "none".
    """

    text: str
    level: Level
    granularity: Granularity
    targets: tuple[int, ...]


# Weight, selection, the granularities it can have, and what it selects with.
_Row = tuple[float, Kind, tuple[Granularity, ...], HeadMaker, ReferenceMaker]

_ANY: Final[tuple[Granularity, ...]] = GRANULARITIES
_ONE: Final[tuple[Granularity, ...]] = ("one", "none")
_PART: Final[tuple[Granularity, ...]] = ("one", "subset", "none")
_ONE_ALL: Final[tuple[Granularity, ...]] = ("one", "all", "none")


def _concept(ask: Ask) -> Draft | None:
    head = ask.make_head()
    if head is None or (ask.want == "none") == bool(head.members):
        return None
    text = head.one if ask.random.random() < 0.55 else head.many
    return Draft(text, head.members, head.members, universal=True)


_KINDS: Final[dict[Level, tuple[_Row, ...]]] = {
    "concept": ((1.0, _concept, _ONE_ALL, noun_head, noun_reference),),
    "simple": (
        (3.0, selections.whole, _ONE_ALL, noun_head, noun_reference),
        (7.0, selections.by_relation, _ANY, noun_head, noun_reference),
        (2.0, selections.by_region, _ANY, noun_head, noun_reference),
        (2.0, selections.by_edge, _PART, noun_head, noun_reference),
        (2.0, selections.by_distance, _ONE, noun_head, noun_reference),
        (1.6, selections.by_size, _ONE, noun_head, noun_reference),
        (1.4, selections.by_exception, _PART, noun_head, noun_reference),
        (0.8, selections.by_comparison, _ANY, noun_head, noun_reference),
        (1.2, selections.by_between, _ANY, noun_head, noun_reference),
        (0.8, selections.by_order, _ONE, noun_head, noun_reference),
        (0.7, selections.by_likeness, _ANY, noun_head, noun_reference),
        (0.4, selections.by_late_color, _ANY, shape_head, noun_reference),
    ),
    "complex": (
        (6.0, selections.whole, _ONE_ALL, riddle_head, riddle_reference),
        (2.2, selections.by_relation, _ANY, thing_head, riddle_reference),
        (1.0, selections.by_relation, _ANY, riddle_head, riddle_reference),
        (0.6, selections.by_relation, _ANY, thing_head, noun_reference),
        (1.0, selections.by_region, _ANY, riddle_head, riddle_reference),
        (0.8, selections.by_region, _ANY, thing_head, riddle_reference),
        (1.0, selections.by_edge, _PART, riddle_head, riddle_reference),
        (0.8, selections.by_edge, _PART, thing_head, riddle_reference),
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
    scene: DrawnScene, rng: np.random.Generator, level: Level, granularity: Granularity | None = None
) -> Instruction | None:
    """Writes one instruction that has a clear answer in the scene.

    Args:
        scene: what it speaks of.
        rng: decides; the same state writes the same instruction.
        level: "concept", "simple" or "complex".
        granularity: how much to ask for; None mixes them, "none" in about a sixth.

    Returns:
        The instruction, or None where the scene gave no occasion (always for concept with "one" or "subset").

    Raises:
        ValueError: an unknown level or granularity.
    """
    as_level(level)
    if granularity is not None and granularity not in GRANULARITIES:
        raise ValueError(
            f"unknown granularity {granularity!r}; choose from {', '.join(GRANULARITIES)}, or None"
        )
    random = Random(int(rng.integers(2**63)))
    view = View(scene)
    mix = _MIX[level]
    wants = [granularity] if granularity is not None else random.choices(list(mix), list(mix.values()))
    if granularity is None:  # a scene of one object has no subset: take what it has
        wants += [other for other in random.sample(list(mix), len(mix)) if other not in (*wants, "none")]
    for want in wants:
        draft = _draft(view, random, level, want)
        if draft is not None:
            return Instruction(
                _polished(draft.text, level, random), level, want, tuple(sorted(draft.targets))
            )
    return None


def _draft(view: View, random: Random, level: Level, want: Granularity) -> Draft | None:
    if want not in _MIX[level] or (want == "subset" and len(view.objects) < 3):
        return None
    # A weighted order of all kinds (Efraimidis and Spirakis 2006): none is missed, none is tried twice.
    rows = [row for row in _KINDS[level] if want in row[2]]
    rows.sort(key=lambda row: random.random() ** (1 / row[0]), reverse=True)
    for _, kind, _, head, reference in rows:
        ask = Ask(view, random, want, head, reference)
        for _ in range(
            _TRIES[level]
        ):  # a relation is clear more seldom than a colour: let it try more than once
            draft = kind(ask)
            if draft is not None and draft.granularity == want:
                return draft
    return None


def _polished(text: str, level: Level, random: Random) -> str:
    """As people type: at times with an opening, capitals or a full stop."""
    if level != "concept" and random.random() < 0.13:
        text = random.choice(OPENINGS).format(text)
    if level != "concept" and random.random() < 0.06 and not text.endswith("?"):
        text += "."
    case = random.random()
    return text.upper() if case < 0.02 else text[0].upper() + text[1:] if case < 0.14 else text


def corpus(seed: int, count: int) -> Iterator[str]:
    """Phrases to train a tokenizer on: instructions of all levels for small scenes, in equal parts.

    Args:
        seed: the same seed gives the same phrases.
        count: how many.
    """
    written = 0
    scene_seed = 0
    while written < count:
        rng = np.random.default_rng((seed, scene_seed))
        scene_seed += 1
        scene = draw_scene(rng, (96, 96))
        for index in range(24):
            instruction = write_instruction(scene, rng, LEVELS[index % 3])
            if instruction is not None and written < count:
                written += 1
                yield instruction.text
