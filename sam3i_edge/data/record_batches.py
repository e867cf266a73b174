"""Training batches from SAM3-I annotation files: the same `Batch` that drawn scenes give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.annotations import ANNOTATIONS, IMAGES, read_annotations
from sam3i_edge.data.batch import BatchShape, Encode, Sample, mask_boxes
from sam3i_edge.data.dataset import HELD_OUT, Batches, Part, Turns, draw
from sam3i_edge.data.instructions import Instruction
from sam3i_edge.data.records import Record
from sam3i_edge.errors import DataError, ImageError
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.pipeline.preprocess import load_image


@dataclass(frozen=True, slots=True)
class _Question:
    """A text of a record."""

    record: Record
    level: Level
    text: str


class RecordBatches(Batches):
    """Batches of the pictures of a folder, by number; every picture once before any comes again.

    A picture's instructions are drawn from all its records by level. The concept texts of records of
    granularity "one" and "subset" are left out: they name the targets' noun, which may have more instances.
    With pairs in the shape, pictures with too few records for them are left out, see `_pairable`.

    Args:
        folder: holds `annotations.json` and `images/`.
        shape: how much goes into a batch.
        encode: text to token ids int64 [32].
        seed: of the run.
        stream: tells apart the stages of a run.
        level_weights: relative frequency of the levels; a picture without texts of a level gives another.
        classes: as in `Batches`; the objects of a record have none.
        part: "train" leaves out every twentieth picture (by name), "validation" takes these alone.
        augment: vary the filter that shrinks the image.

    Raises:
        DataError: the annotation file is missing or breaks the layout, or no picture has a usable text.
    """

    def __init__(
        self,
        folder: Path,
        shape: BatchShape,
        encode: Encode,
        *,
        seed: int,
        stream: int,
        level_weights: Mapping[Level, float],
        classes: Mapping[str, tuple[str, ...]] | None = None,
        part: Part = "train",
        augment: bool = True,
    ) -> None:
        super().__init__(shape, encode, seed=seed, stream=stream, classes=classes, augment=augment)
        self.folder, self.level_weights = folder, dict(level_weights)
        questions: dict[str, list[_Question]] = defaultdict(list)
        paired: dict[str, list[Record]] = defaultdict(list)
        for record in read_annotations(folder / ANNOTATIONS):
            paired[record.file_name] += [record] if _pairable(record) else []
            questions[record.file_name] += [
                q for q in _questions(record) if level_weights.get(q.level, 0) > 0
            ]
        # Of all pictures, whatever the levels: one kept from a stage must be kept from all.
        held_out = set(sorted(questions)[::HELD_OUT])
        self.questions = {
            name: questions[name]
            for name in sorted(questions)
            if questions[name]
            and len(paired[name]) >= shape.pairs
            and (name in held_out) == (part == "validation")
        }
        self.paired = {name: paired[name] for name in self.questions} if shape.pairs else {}
        if not self.questions:
            wanted = (
                f" and {shape.pairs} records to pair a simple and a complex text in" if shape.pairs else ""
            )
            raise DataError(
                f"{folder / ANNOTATIONS}: none of the pictures for {part} has a text of the levels "
                f"{', '.join(level_weights)}{wanted}; {len(held_out)} of {len(questions)} are kept for "
                "validation"
            )
        self._turns = Turns(len(self.questions), seed, stream)

    def sample(self, position: int, rng: np.random.Generator) -> Sample:
        """See `Batches.sample`."""
        name = list(self.questions)[self._turns[position]]
        records = _some(self.paired[name], self.shape.pairs, rng) if self.shape.pairs else []
        asked = [question for record in records for question in _pair(record, rng)]
        # Where the pairs were all there is to ask, some are asked again.
        left = [question for question in self.questions[name] if question not in asked]
        count = self.shape.instructions - len(asked)
        asked += _choose(left or self.questions[name], self.level_weights, count, rng)
        masks: list[NDArray[np.bool_]] = []
        instructions = []
        first: dict[int | str, tuple[int, ...]] = {}
        for question in asked:
            record = question.record
            if record.image_id not in first:
                usable = _usable(record)
                first[record.image_id] = tuple(range(len(masks), len(masks) + len(usable)))
                masks += list(usable)
            instructions.append(
                Instruction(
                    question.text, question.level, record.granularity or "all", first[record.image_id]
                )
            )
        image = _read_image(self.folder / IMAGES / name, asked[0].record)
        stack = np.stack(masks) if masks else np.zeros((0, *image.shape[:2]), np.bool_)
        return Sample(
            image=image,
            masks=stack,
            boxes=mask_boxes(stack),
            attributes=np.full((len(stack), len(self.classes)), -1, np.int64),
            instructions=tuple(instructions),
            concepts=tuple(record.concept[0] for record in records),
        )


def _pairable(record: Record) -> bool:
    """Whether it has a concept, a simple and a complex text, and a target.

    The texts of a record without targets need not mean the same.
    """
    instances = [annotation for annotation in record.annotations if not annotation.iscrowd]
    return bool(record.concept and record.simple and record.complex and instances)


def _pair(record: Record, rng: np.random.Generator) -> tuple[_Question, _Question]:
    """One of its simple and one of its complex texts."""
    simple, complex_ = (texts[int(rng.integers(len(texts)))] for texts in (record.simple, record.complex))
    return _Question(record, "simple", simple), _Question(record, "complex", complex_)


def _some(records: Sequence[Record], count: int, rng: np.random.Generator) -> list[Record]:
    return [records[i] for i in rng.choice(len(records), count, replace=False)]


def _questions(record: Record) -> list[_Question]:
    texts = {"concept": record.concept, "simple": record.simple, "complex": record.complex}
    if record.granularity in ("one", "subset"):
        texts["concept"] = []
    # Crowds are no instances; a record that has nothing else cannot be asked for.
    if record.annotations and all(annotation.iscrowd for annotation in record.annotations):
        return []
    return [_Question(record, level, text) for level in LEVELS for text in texts[level]]


def _choose(
    questions: Sequence[_Question], weights: Mapping[Level, float], count: int, rng: np.random.Generator
) -> list[_Question]:
    """By level, then evenly among its texts; none twice before all were asked."""
    chosen: list[_Question] = []
    left: dict[Level, list[_Question]] = {}
    for _ in range(count):
        if not any(left.values()):
            left = {level: [q for q in questions if q.level == level] for level in LEVELS}
        level = draw(
            rng, {level: weights[level] for level, texts in left.items() if texts and weights.get(level, 0)}
        )
        chosen.append(left[level].pop(int(rng.integers(len(left[level])))))
    return chosen


def _usable(record: Record) -> NDArray[np.bool_]:
    """The masks of the record's targets that are instances and cover a pixel."""
    single = np.array([not annotation.iscrowd for annotation in record.annotations], np.bool_)
    masks = record.masks()[single]
    return masks[masks.any(axis=(1, 2))]


def _read_image(path: Path, record: Record) -> NDArray[np.uint8]:
    try:
        found = load_image(path)
    except ImageError as error:
        raise DataError(f"{error}; {ANNOTATIONS} names it in record {record.image_id}") from error
    if found.shape[:2] != (record.height, record.width):
        raise DataError(
            f"{path} is {found.shape[1]} x {found.shape[0]} px, record {record.image_id} says "
            f"{record.width} x {record.height}; correct the one that is wrong"
        )
    return found
