"""Questions about scenes with all that their noun names: how much of an answer is more than the noun.

A module of scripts/curricula.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from sam3i_edge.data.batch import Batch, BatchShape, Encode, Sample, assemble, from_scene
from sam3i_edge.data.dataset import ask
from sam3i_edge.data.geometry import view_of
from sam3i_edge.data.query import Inside, Is, Nearest, Query
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources.scene_file import SceneFileSource
from sam3i_edge.data.truth import answer
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.detector import Prediction
from sam3i_edge.train.run_config import DataSource
from where_it_is_lost import overlap

NONE_SHARE = 0.25  # of what is asked, nothing is there
_REFERENCES = ("reference", "first", "second")


@dataclass(frozen=True, slots=True)
class Asked:
    """A batch of scenes, and for every instruction its kind, what its noun names, and what it compares with.

    Objects are numbers in the batch.
    """

    batch: Batch
    kinds: tuple[str, ...]
    named: tuple[tuple[int, ...], ...]
    references: tuple[tuple[int, ...], ...]


def kind_of(query: Query) -> str:
    """What narrows the noun: where the thing is in the picture, another thing, or the rest of its class."""
    if query.pick is None and query.without is None:
        return "place" if all(isinstance(test, Is | Inside) for test in query.filters) else "another"
    near = isinstance(query.pick, Nearest) and query.pick.reference is not None
    return "another" if near or query.without is not None else "its class"


def references(query: Query) -> list[Query]:
    """The other things that a query speaks of, to tell its own by."""
    parts = [getattr(test, name, None) for test in (*query.filters, query.pick) for name in _REFERENCES]
    return [part for part in parts if isinstance(part, Query)]


def questions(pictures: DataSource, encode: Encode, side: int, mask_size: int, count: int) -> list[Asked]:
    """Batches of 48 questions about drawn scenes, or those of the folder for validation, in turn."""
    vocabulary, levels = load_vocabulary(pictures.vocabulary), dict.fromkeys(LEVELS, 1.0)
    held_out = SceneFileSource(Path(pictures.validation), vocabulary) if pictures.path else None
    turns = cycle(range(len(held_out or ())))
    shape = BatchShape(images=8, mask_instructions=6, image_size=side, mask_size=mask_size)
    made = []
    for number in range(count):
        rng = np.random.default_rng((20261129, number))
        samples: list[Sample] = []
        kinds, named, others = [], [], []
        while len(samples) < shape.images:
            scene = draw_scene(rng) if held_out is None else held_out.scene(next(turns))
            asked = ask(scene, vocabulary, rng, shape, levels, NONE_SHARE)
            if asked is None:
                continue
            first, view = sum(len(sample.masks) for sample in samples), view_of(scene)
            for query in (instruction.query for instruction in asked[0]):
                assert query is not None
                meant, compared = answer(query, view), [answer(other, view) for other in references(query)]
                kinds.append(kind_of(query))
                named.append(tuple(first + member for member in meant.members) if meant else ())
                others.append(
                    tuple(first + target for other in compared if other for target in other.targets)
                )
            samples.append(from_scene(scene, vocabulary.attributes, *asked))
        batch = assemble(samples, shape, encode, rng, augment=False)
        made.append(Asked(batch, tuple(kinds), tuple(named), tuple(others)))
    return made


def figures(
    asked: list[Asked], told: Sequence[Prediction | None], score: float = 0.0
) -> dict[str, list[float]]:
    """IoU of every question by level and by what its noun leaves open; what is told rightly.

    None stands for an answer of all objects that the noun names, each whole.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for one, out in zip(asked, told, strict=True):
        batch = one.batch
        wanted = batch.union_masks(torch.arange(len(batch.level))) > 0.5
        for pair, (kind, named) in enumerate(zip(one.kinds, one.named, strict=True)):
            if out is None:
                kept = batch.object_masks[list(named)] > 127
            else:
                scores = out.logits[-1, pair].sigmoid() * out.presence[-1, pair].sigmoid()
                kept = out.mask_logits[pair][scores > score] > 0
            there = bool((batch.target_pair == pair).any())
            found["right"].append(float(there == bool(len(kept))))
            if not there:
                found["nothing"].append(float(not len(kept)))
                continue
            level = LEVELS[int(batch.level[pair])]
            iou = float(overlap(kept.any(0), wanted[pair])) if len(kept) else 0.0
            found[level].append(iou)
            enough = set(batch.target_object[batch.target_pair == pair].tolist()) == set(named)
            found[f"{level}, noun {'enough' if enough else 'not enough'}"].append(iou)
            if not enough:
                found[f"not enough: {kind}"].append(iou)
    return found


def told_apart(asked: list[Asked], told: Sequence[Prediction]) -> dict[str, list[float]]:
    """By level and kind: whether a target scores higher than another thing that its noun names; chance is .5.

    An object has the score of the query whose mask overlaps most with it, so this asks what a model compares
    and not how sure it is. One figure a question whose noun is not enough: the mean of its pairs.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for one, out in zip(asked, told, strict=True):
        objects = one.batch.object_masks > 127
        for pair, (kind, named) in enumerate(zip(one.kinds, one.named, strict=True)):
            targets = one.batch.target_object[one.batch.target_pair == pair].tolist()
            others = sorted(set(named) - set(targets))
            if not targets or not others:
                continue
            masks = out.mask_logits[pair][:, None] > 0
            best = [
                out.logits[-1, pair][overlap(masks, objects[these]).argmax(0)] for these in (targets, others)
            ]
            higher = (best[0][:, None] > best[1]).float().mean()
            for name in (LEVELS[int(one.batch.level[pair])], kind):
                found[name].append(float(higher))
    return found
