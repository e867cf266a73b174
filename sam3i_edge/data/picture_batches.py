"""Training batches of pictures that nobody annotated, for a teacher to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from sam3i_edge.data.batch import BatchShape, Encode, Sample
from sam3i_edge.data.corpus import invented
from sam3i_edge.data.dataset import HELD_OUT, Batches, Part, Turns, check_levels, draw
from sam3i_edge.data.families import TRAINED
from sam3i_edge.data.instructions import Instruction, write_instruction
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.errors import DataError, ImageError
from sam3i_edge.levels import Level
from sam3i_edge.pipeline.preprocess import load_image

_ENDINGS: Final = frozenset({
    ".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
_TRIES: Final = 100


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder and of those in it, by the endings of their names, sorted.

    Raises:
        DataError: there are fewer than two: one is kept for validation.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    if len(found) < 2:
        raise DataError(f"{folder} holds {len(found)} pictures, want two at least: name a folder of pictures")
    return found


class PictureBatches(Batches):
    """Batches of pictures by number, every picture once before any comes again, half of the time mirrored.

    Instructions are written for scenes that are invented, so that some fit a picture and others do not.

    Args:
        pictures: files, at least two.
        vocabulary: words of the instructions.
        shape: how much goes into a batch.
        encode: text to token ids int64 [T].
        seed: of the run.
        stream: tells apart the stages of a run.
        level_weights: relative frequency of the levels.
        classes: as in `Batches`; nothing is known of the objects.
        part: "train" leaves out every twentieth picture (by name), "validation" takes these alone.
        augment: mirror, and vary the filter that shrinks the image.

    Raises:
        ValueError: an unknown level, or weights that are all 0.
    """

    def __init__(
        self,
        pictures: Sequence[Path],
        vocabulary: Vocabulary,
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
        check_levels(level_weights)
        self.vocabulary, self.level_weights = vocabulary, dict(level_weights)
        self.pictures = [
            path for n, path in enumerate(pictures) if (n % HELD_OUT == 0) == (part == "validation")
        ]
        self._turns = Turns(len(self.pictures), seed, stream)

    def sample(self, position: int, rng: np.random.Generator) -> Sample:
        """See `Batches.sample`."""
        path = self.pictures[self._turns[position]]
        try:
            image = load_image(path)
        except ImageError as error:
            raise DataError(f"{error}; take it out of the folder, the run goes on where it was") from error
        if self.augment and rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
        return Sample(
            image=image,
            masks=np.zeros((0, *image.shape[:2]), np.bool_),
            boxes=np.zeros((0, 4), np.float32),
            attributes=np.zeros((0, len(self.classes)), np.int64),
            instructions=self._asked(rng),
        )

    def _asked(self, rng: np.random.Generator) -> tuple[Instruction, ...]:
        found: list[Instruction] = []
        for _ in range(_TRIES * self.shape.instructions):
            level = draw(rng, self.level_weights)
            scene = invented(self.vocabulary, rng)
            written = write_instruction(scene, self.vocabulary, rng, level, wordings=TRAINED)
            found += [] if written is None else [Instruction(written.text, level, "none", ())]
            if len(found) == self.shape.instructions:
                return tuple(found)
        raise DataError("the vocabulary has too few words to ask with: give one with more nouns")
