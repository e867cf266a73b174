"""Records: a picture, one set of targets in it, and the texts that describe exactly them.

A record is what SAM3-I's annotation file keeps under one image id; a picture appears under as many ids as it
has target sets. `scene_records` makes those of a scene.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.instructions import Granularity, Instruction, write_instruction
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.segmentation import Segmentation, mask_of
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.masks import rle


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One target.

    Attributes:
        id: unique in its file.
        category: name of its class, "" where the file names none.
        bbox: (x, y, width, height) px, or None where the file has none.
        segmentation: polygons, or run lengths with "size" and "counts".
        iscrowd: 0 or 1, as in COCO.
    """

    id: int | str
    category: str
    bbox: tuple[float, float, float, float] | None
    segmentation: Segmentation
    iscrowd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One picture with one set of targets.

    Attributes:
        image_id: unique in its file.
        file_name: the picture, relative to the folder of images; several records may share it.
        width: px.
        height: px.
        concept: noun phrases. They describe the targets exactly where `granularity` is "all", "none" or None;
            where it is "one" or "subset" they name the targets' noun, which may have more instances.
        simple: instructions with the noun that describe exactly the targets; may be empty, as may the others.
        complex: instructions without the noun that describe exactly the targets.
        granularity: "one", "subset", "all", "none", or None where the file does not say.
        annotations: the targets; none where there is nothing to find.
        source: the file it was read from, for messages.
    """

    image_id: int | str
    file_name: str
    width: int
    height: int
    concept: list[str]
    simple: list[str]
    complex: list[str]
    granularity: Granularity | None = None
    annotations: tuple[Annotation, ...] = ()
    source: str = field(default="", compare=False)

    def masks(self) -> NDArray[np.bool_]:
        """Masks bool [N, height, width] of its annotations, decoded anew by each call.

        Raises:
            DataError: a segmentation does not decode to the picture's size.
        """
        stack = np.zeros((len(self.annotations), self.height, self.width), np.bool_)
        for mask, annotation in zip(stack, self.annotations, strict=True):
            where = f"{self.source or 'record'}: image {self.image_id}, annotation {annotation.id}"
            mask[...] = mask_of(annotation.segmentation, self.height, self.width, where)
        return stack


def targets_of(record: Record) -> NDArray[np.bool_]:
    """The record's target masks, bool [N, H, W]; see `Record.masks`."""
    return record.masks()


_Key = tuple[Granularity, tuple[int, ...]]  # what a record is about

_PER_SCENE: Final[dict[Granularity, int]] = {"one": 2, "subset": 1, "all": 2, "none": 1}
_DRAWN: Final[dict[Granularity, int]] = {"one": 14, "subset": 8, "all": 14}  # texts tried per level


def scene_records(
    scene: Scene,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    *,
    file_name: str = "scene.png",
    first_id: int = 1,
) -> list[Record]:
    """Writes up to six records for a scene, at most two of a granularity.

    Target sets that can be said at several levels come first, so that most records hold a simple and a
    complex text for the same targets. The texts of a record with "none" are unrelated to each other.

    Args:
        scene: the scene.
        vocabulary: its words.
        rng: decides.
        file_name: the picture's name in the records.
        first_id: image id of the first record; annotation ids are 1, 2, … in each record list.
    """
    random = Random(int(rng.integers(2**63)))
    chosen: list[tuple[_Key, dict[Level, list[str]]]] = []
    texts = _texts_by_target(scene, vocabulary, rng)
    for granularity, most in _PER_SCENE.items():
        if granularity == "none":
            texts_of_none = _texts_of_none(scene, vocabulary, rng)
            chosen += [((granularity, ()), texts_of_none)] if any(texts_of_none.values()) else []
            continue
        keys = [key for key in texts if key[0] == granularity]
        random.shuffle(keys)
        keys.sort(key=lambda key: -sum(bool(texts[key][level]) for level in LEVELS))
        chosen += [(key, texts[key]) for key in keys[:most]]
    records: list[Record] = []
    next_annotation = 1
    for (granularity, targets), by_level in chosen:
        noun = noun_of(scene, vocabulary, targets)
        concept = by_level["concept"] if granularity in ("all", "none") else [noun]
        records.append(
            Record(
                image_id=first_id + len(records),
                file_name=file_name,
                width=scene.size[1],
                height=scene.size[0],
                concept=concept,
                simple=by_level["simple"],
                complex=by_level["complex"],
                granularity=granularity,
                annotations=tuple(
                    _annotation(scene, target, next_annotation + i, noun) for i, target in enumerate(targets)
                ),
            )
        )
        next_annotation += len(targets)
    return records


def _texts_by_target(
    scene: Scene, vocabulary: Vocabulary, rng: np.random.Generator
) -> dict[_Key, dict[Level, list[str]]]:
    found: dict[_Key, dict[Level, list[str]]] = {}
    for level in LEVELS:
        for granularity, tries in _DRAWN.items():
            for _ in range(tries):
                written = write_instruction(scene, vocabulary, rng, level, granularity)
                if written is None:
                    break
                texts = found.setdefault((granularity, written.targets), {name: [] for name in LEVELS})[level]
                if written.text not in texts:
                    texts.append(written.text)
    return found


def _texts_of_none(scene: Scene, vocabulary: Vocabulary, rng: np.random.Generator) -> dict[Level, list[str]]:
    written: dict[Level, Instruction | None] = {
        level: write_instruction(scene, vocabulary, rng, level, "none") for level in LEVELS
    }
    return {level: [] if text is None else [text.text] for level, text in written.items()}


def noun_of(scene: Scene, vocabulary: Vocabulary, targets: tuple[int, ...]) -> str:
    """The noun of some objects of a scene: their category, or what stands for several categories."""
    categories = {scene.objects[target].category for target in targets}
    return vocabulary.nouns(categories.pop())[0].one if len(categories) == 1 else vocabulary.mixed


def _annotation(scene: Scene, target: int, number: int, category: str) -> Annotation:
    x0, y0, x1, y1 = scene.objects[target].box
    return Annotation(
        id=number,
        category=category,
        bbox=(float(x0), float(y0), float(x1 - x0), float(y1 - y0)),
        segmentation=rle.encode(scene.objects[target].mask),
    )
