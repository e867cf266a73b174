"""Training batches from scene files: attributes and instructions are drawn anew each time a picture comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.batch import BatchShape, Encode, Sample, from_scene
from sam3i_edge.data.dataset import HELD_OUT, Batches, Part, Turns, ask, check_levels
from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.sources.scene_file import SceneFileSource
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.errors import DataError
from sam3i_edge.levels import Level

_PICTURES: Final = 20  # tried in place of one that gives too few instructions


class SceneFileBatches(Batches):
    """Batches of the pictures of a scene file, by number; every picture once before any comes again.

    A picture that gives too few instructions is replaced by one drawn at random.

    Args:
        source: the scene file.
        vocabulary: the words of the instructions.
        shape: how much goes into a batch.
        encode: text to token ids int64 [32].
        level_weights: relative frequency of the levels of the instructions.
        none_share: share of the instructions that match nothing.
        classes: as in `Batches`; None takes those of the vocabulary.
        part: "train" leaves out every twentieth picture, "validation" takes these alone, None takes all.
        seed, stream, augment: as in `Batches`; with `augment`, half of the pictures are mirrored.

    Raises:
        ValueError: an unknown level, or weights that are all 0.
        DataError: no picture is left for `part`.
    """

    def __init__(
        self,
        source: SceneFileSource,
        vocabulary: Vocabulary,
        shape: BatchShape,
        encode: Encode,
        *,
        seed: int,
        stream: int,
        level_weights: Mapping[Level, float],
        none_share: float = 0.2,
        classes: Mapping[str, tuple[str, ...]] | None = None,
        part: Part | None = "train",
        augment: bool = True,
    ) -> None:
        classes = vocabulary.attributes if classes is None else classes
        super().__init__(shape, encode, seed=seed, stream=stream, classes=classes, augment=augment)
        check_levels(level_weights)
        self.source, self.vocabulary = source, vocabulary
        self.level_weights, self.none_share = dict(level_weights), none_share
        numbers = np.arange(len(source))
        held_out = numbers % HELD_OUT == 0
        self.pictures = numbers if part is None else numbers[held_out == (part == "validation")]
        if not len(self.pictures):
            raise DataError(
                f"{source.path}: its only picture is kept for validation, none is left for {part}: add more, "
                "or name a folder for validation"
            )
        self._turns = Turns(len(self.pictures), seed, stream)

    def sample(self, position: int, rng: np.random.Generator) -> Sample:
        """See `Batches.sample`.

        Raises:
            DataError: the file has changed, a picture cannot be read, or 20 pictures in turn give too few
                instructions.
        """
        place = self._turns[position]
        for _ in range(_PICTURES):
            number = int(self.pictures[place])
            scene = self.source.scene(number)
            if self.augment and rng.random() < 0.5:
                scene = _mirrored(scene)
            asked = ask(scene, self.vocabulary, rng, self.shape, self.level_weights, self.none_share)
            if asked is not None:
                return from_scene(scene, self.classes, *asked)
            place = int(rng.integers(len(self.pictures)))
        raise DataError(
            f"{self.source.path}: {_PICTURES} pictures give no {self.shape.instructions} instructions of the "
            f"levels {', '.join(self.level_weights)} and {self.shape.pairs} pairs each: ask for fewer, or "
            f"give a vocabulary that knows more of their categories than {self.vocabulary.name}"
        )


def _mirrored(scene: Scene) -> Scene:
    """The scene with left and right exchanged, its picture read."""
    image: NDArray[np.uint8] = np.ascontiguousarray(scene.pixels()[:, ::-1])
    return replace(
        scene, image=image, objects=tuple(_mirrored_object(item, scene.size[1]) for item in scene.objects)
    )


def _mirrored_object(item: SceneObject, width: int) -> SceneObject:
    x0, y0, x1, y1 = item.box
    x, y = item.center
    return replace(item, box=(width - x1, y0, width - x0, y1), center=(width - x, y), mask=item.mask[:, ::-1])
