"""The instructions of one picture: what is proven, as records, and what a person has to decide."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from sam3i_edge.data.annotations import IMAGES
from sam3i_edge.data.families import SPELLED
from sam3i_edge.data.instructions import Granularity, Instruction, unproven, write_instruction
from sam3i_edge.data.pairs import write_pairs
from sam3i_edge.data.records import Annotation, Record, noun_of
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.masks import rle

_GRANULARITIES: Final[Mapping[Level, Mapping[Granularity, float]]] = {
    "concept": {"all": 0.8, "none": 0.2},
    "simple": {"one": 0.4, "subset": 0.15, "all": 0.3, "none": 0.15},
    "complex": {"one": 0.4, "subset": 0.15, "all": 0.3, "none": 0.15},
}
_TRIES: Final = 3  # an instruction, before the picture is said to give no occasion for more


@dataclass(frozen=True, slots=True)
class Written:
    """What was written for a picture.

    Attributes:
        instructions: proven, no text twice.
        review: not proven; their targets are a guess.
        dropped: why others were not kept, and how many: "no occasion: simple, subset", "repeated".
    """

    instructions: tuple[Instruction, ...]
    review: tuple[Instruction, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)


def write_picture(
    scene: Scene,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    *,
    levels: Sequence[Level],
    most: int,
    review: int,
) -> Written:
    """Writes the instructions of a picture.

    Where both levels are asked for, it begins with a simple and a complex one for the same targets.

    Args:
        scene: what they speak of.
        vocabulary: their words.
        rng: decides; the same state writes the same instructions.
        levels: asked for, in turn.
        most: instructions, at most.
        review: unproven ones, at most.
    """
    found: dict[str, Instruction] = {}
    dropped: Counter[str] = Counter()
    if {"simple", "complex"} <= set(levels) and most > 1:
        for pair in write_pairs(scene, vocabulary, rng, 1, SPELLED) or ():
            found |= {pair.simple.text: pair.simple, pair.complex.text: pair.complex}
    for attempt in range(_TRIES * most):
        if len(found) == most:
            break
        level = levels[attempt % len(levels)]
        shares = _GRANULARITIES[level]
        granularity = list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]
        written = write_instruction(scene, vocabulary, rng, level, granularity, wordings=SPELLED)
        if written is None:
            dropped[f"no occasion: {level}, {granularity}"] += 1
        elif written.text in found:
            dropped["repeated"] += 1
        else:
            found[written.text] = written
    return Written(tuple(found.values()), _unproven(scene, vocabulary, rng, levels, review, found), dropped)


def _unproven(
    scene: Scene,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    levels: Sequence[Level],
    most: int,
    proven: Mapping[str, Instruction],
) -> tuple[Instruction, ...]:
    found: dict[str, Instruction] = {}
    for attempt in range(_TRIES * most):
        if len(found) == most:
            break
        drawn = unproven(scene, vocabulary, rng, levels[attempt % len(levels)])
        if drawn is not None and drawn.text not in proven:
            found.setdefault(drawn.text, drawn)
    return tuple(found.values())


def as_records(
    scene: Scene, vocabulary: Vocabulary, instructions: Sequence[Instruction], file_name: str
) -> list[Record]:
    """Instructions of equal targets as one record; ids count from 1 in the picture.

    Records of part of a class get its noun as concept, which may have more instances; see `Record.concept`.
    """
    texts: dict[tuple[Granularity, tuple[int, ...]], dict[Level, list[str]]] = {}
    for written in instructions:
        key = written.granularity, written.targets
        texts.setdefault(key, {level: [] for level in LEVELS})[written.level].append(written.text)
    records: list[Record] = []
    next_id = 1
    for (granularity, targets), by_level in texts.items():
        noun = noun_of(scene, vocabulary, targets) if targets else ""
        if granularity in ("one", "subset"):
            by_level["concept"] = [noun]
        records.append(
            Record(
                image_id=len(records) + 1,
                file_name=file_name,
                width=scene.size[1],
                height=scene.size[0],
                granularity=granularity,
                annotations=tuple(_target(scene, target, next_id + i) for i, target in enumerate(targets)),
                concept=by_level["concept"],
                simple=by_level["simple"],
                complex=by_level["complex"],
            )
        )
        next_id += len(targets)
    return records


def _target(scene: Scene, target: int, number: int) -> Annotation:
    item = scene.objects[target]
    x0, y0, x1, y1 = item.box
    return Annotation(
        id=number,
        category=item.category,
        bbox=(float(x0), float(y0), float(x1 - x0), float(y1 - y0)),
        segmentation=rle.encode(item.mask),
    )


def review_item(scene: Scene, written: Instruction, file_name: str) -> dict[str, Any]:
    """A line of `review.jsonl`: see `review.queue.ReviewItem`."""
    masks = [rle.encode(item.mask) for item in scene.objects]
    others = [number for number in range(len(masks)) if number not in written.targets]
    targets = [masks[target] for target in written.targets]
    content = "\n".join((file_name, written.level, written.text, *(mask["counts"] for mask in targets)))
    return {
        "id": hashlib.sha256(content.encode()).hexdigest()[:16],
        "file": f"{IMAGES}/{file_name}",
        "size": list(scene.size),
        "text": written.text,
        "level": written.level,
        "granularity": written.granularity,
        "targets": targets,
        "others": [masks[number] for number in others],
        "numbers": [*written.targets, *others],
        "why": written.why,
        "form": written.form,
    }
