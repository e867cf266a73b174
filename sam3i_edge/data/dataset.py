"""Sources of training batches, by number, and how a scene is asked.

Every batch is a pure function of (seed, stream, number), so a run resumed at step n sees what an
uninterrupted one would have seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from sam3i_edge.data.batch import Batch, BatchShape, Encode, Sample, assemble, from_scene
from sam3i_edge.data.families import TRAINED
from sam3i_edge.data.instructions import Granularity, Instruction, write_instruction
from sam3i_edge.data.pairs import write_pairs
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.vocabulary import Vocabulary, load_vocabulary
from sam3i_edge.levels import LEVELS, Level

T = TypeVar("T")


Part = Literal["train", "validation"]
HELD_OUT: Final = 20  # one picture in this many is kept for validation

# Frequencies among the instructions that have a target. Where a scene gives no occasion for one, another is
# drawn; a concept always means every instance.
_GRANULARITIES: dict[Level, dict[Granularity, float]] = {
    "concept": {"all": 1.0},
    "simple": {"one": 0.45, "subset": 0.2, "all": 0.35},
    "complex": {"one": 0.45, "subset": 0.2, "all": 0.35},
}
_TRIES = 12


class Batches(Dataset[Batch], ABC):
    """Batches of a source, by number.

    Args:
        shape: how much goes into a batch.
        encode: text to token ids int64 [32].
        seed: of the run.
        stream: tells apart the stages of a run and its validation; equal (seed, stream) give equal batches.
        classes: attribute -> its classes, in the order of their numbers in `Batch.object_attributes`; None
            for those of drawn shapes.
        augment: vary the filter that shrinks the image, and what else a source can vary; False shows the
            images as inference does.
    """

    def __init__(
        self,
        shape: BatchShape,
        encode: Encode,
        *,
        seed: int,
        stream: int,
        classes: Mapping[str, tuple[str, ...]] | None = None,
        augment: bool = True,
    ) -> None:
        self.shape, self.encode, self.seed, self.stream = shape, encode, seed, stream
        self.classes = drawn_classes() if classes is None else dict(classes)
        self.augment = augment

    def __getitem__(self, number: int) -> Batch:
        """The batch of that number; any number from 0 has one."""
        rng = np.random.default_rng([self.seed, self.stream, number])
        first = number * self.shape.images
        samples = [self.sample(position, rng) for position in range(first, first + self.shape.images)]
        return assemble(samples, self.shape, self.encode, rng, augment=self.augment)

    @abstractmethod
    def sample(self, position: int, rng: np.random.Generator) -> Sample:
        """The image at a place of the stream, counted from 0, with what `rng` draws of it."""


class SceneBatches(Batches):
    """Batches of drawn scenes, of which no two are the same.

    Args:
        shape: how much goes into a batch.
        encode: text to token ids int64 [32].
        level_weights: relative frequency of the levels of the instructions.
        none_share: share of the instructions that match nothing.
        seed, stream, classes, augment: as in `Batches`.

    Raises:
        ValueError: an unknown level, or weights that are all 0.
    """

    def __init__(
        self,
        shape: BatchShape,
        encode: Encode,
        *,
        seed: int,
        stream: int,
        level_weights: Mapping[Level, float],
        none_share: float = 0.2,
        classes: Mapping[str, tuple[str, ...]] | None = None,
        augment: bool = True,
    ) -> None:
        super().__init__(shape, encode, seed=seed, stream=stream, classes=classes, augment=augment)
        check_levels(level_weights)
        self.level_weights, self.none_share = dict(level_weights), none_share

    def sample(self, position: int, rng: np.random.Generator) -> Sample:
        """See `Batches.sample`; a scene too plain for that many different instructions is drawn again."""
        del position
        vocabulary = load_vocabulary("shapes")
        while True:
            scene = draw_scene(rng)
            asked = ask(scene, vocabulary, rng, self.shape, self.level_weights, self.none_share)
            if asked is not None:
                return from_scene(scene, self.classes, *asked)


@cache
def drawn_classes() -> dict[str, tuple[str, ...]]:
    """Attribute -> its classes, of drawn shapes."""
    return dict(load_vocabulary("shapes").attributes)


class Turns:
    """The place of a picture in its file by its place in a stream: all once before any comes again.

    Args:
        count: pictures, at least 1.
        seed, stream: decide the order of every turn.
    """

    def __init__(self, count: int, seed: int, stream: int) -> None:
        self.count, self.seed, self.stream = count, seed, stream
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __getitem__(self, position: int) -> int:
        turn, place = divmod(position, self.count)
        if turn not in self._orders:
            rng = np.random.default_rng([self.seed, self.stream, turn, 1])
            # A batch may straddle two turns; older ones never come back.
            kept = {number: order for number, order in self._orders.items() if number == turn - 1}
            self._orders = kept | {turn: rng.permutation(self.count)}
        return int(self._orders[turn][place])


def check_levels(weights: Mapping[Level, float]) -> None:
    """Raises ValueError where weights of levels name an unknown one, or none above 0."""
    if set(weights) - set(LEVELS) or sum(weights.values()) <= 0 or min(weights.values()) < 0:
        raise ValueError(f"level_weights must weigh some of {', '.join(LEVELS)}, got {dict(weights)}")


def ask(
    scene: Scene,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    shape: BatchShape,
    level_weights: Mapping[Level, float],
    none_share: float,
) -> tuple[tuple[Instruction, ...], tuple[str, ...]] | None:
    """As many different instructions for a scene as `shape` has, its pairs first, and the pairs' concepts.

    Args:
        scene: what they speak of.
        vocabulary: their words.
        rng: decides.
        shape: how many of them, and how many pairs among them.
        level_weights: relative frequency of the levels, beside the pairs.
        none_share: share of those that match nothing.

    Returns:
        None where the scene gives no occasion for so many.
    """
    pairs = write_pairs(scene, vocabulary, rng, shape.pairs)
    if pairs is None:
        return None
    found: dict[str, Instruction] = {}
    for pair in pairs:
        found |= {pair.simple.text: pair.simple, pair.complex.text: pair.complex}
    for _ in range(_TRIES * shape.instructions):
        if len(found) == shape.instructions:
            break
        level = draw(rng, level_weights)
        nothing = rng.random() < none_share
        for _ in range(_TRIES):
            kind: Granularity = "none" if nothing else draw(rng, _GRANULARITIES[level])
            written = write_instruction(scene, vocabulary, rng, level, kind, wordings=TRAINED)
            if written is not None and written.text not in found:
                found[written.text] = written
                break
    if len(found) < shape.instructions:
        return None
    return tuple(found.values()), tuple(pair.concept for pair in pairs)


def draw(rng: np.random.Generator, weights: Mapping[T, float]) -> T:
    """One of the keys, as often as its weight says."""
    total = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(total, rng.random() * total[-1], side="right"))]
