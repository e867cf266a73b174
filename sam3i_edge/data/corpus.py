"""Texts to train a tokenizer on: the words of some vocabularies, in sentences as people ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from sam3i_edge.data.families import TYPED
from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.vocabulary import CATEGORY, Vocabulary
from sam3i_edge.levels import LEVELS

_SIDE: Final = 64  # pixels of an invented scene
_TEXTS: Final = 24  # of a scene
_RELATIONS: Final = ("on", "in", "next to", "behind", "in front of")


def corpus(seed: int, count: int, vocabularies: Sequence[Vocabulary]) -> Iterator[str]:
    """Instructions of all levels in equal parts, the vocabularies in turn, for scenes without a picture.

    Args:
        seed: the same seed gives the same texts.
        count: how many.
        vocabularies: at least one.
    """
    written = number = 0
    while written < count:
        rng = np.random.default_rng((seed, number))
        vocabulary = vocabularies[number % len(vocabularies)]
        scene = invented(vocabulary, rng)
        number += 1
        for index in range(_TEXTS):
            level = LEVELS[index % len(LEVELS)]
            instruction = write_instruction(scene, vocabulary, rng, level, wordings=TYPED)
            if instruction is not None and written < count:
                written += 1
                yield instruction.text


def invented(vocabulary: Vocabulary, rng: np.random.Generator) -> Scene:
    """A complete scene of 2 to 8 objects, every category, value and relation equally likely; all black."""
    number = int(rng.integers(2, 9))
    objects = []
    for index in range(number):
        x0, y0 = (int(value) for value in rng.integers(0, _SIDE * 3 // 4, 2))
        width, height = (int(value) for value in rng.integers(4, _SIDE // 4, 2))
        mask = np.zeros((_SIDE, _SIDE), np.bool_)
        mask[y0 : y0 + height, x0 : x0 + width] = True
        drawn = {name: str(rng.choice(values)) for name, values in vocabulary.attributes.items()}
        others = [other for other in range(number) if other != index]
        objects.append(
            SceneObject(
                category=drawn.pop(CATEGORY),
                attributes=drawn,
                box=(x0, y0, x0 + width, y0 + height),
                center=(x0 + width / 2, y0 + height / 2),
                mask=mask,
                full_size=(float(width), float(height)),
                depth=None if vocabulary.flat else float(rng.uniform(0.5, 2)),
                relations={}
                if vocabulary.flat
                else {name: {int(rng.choice(others)): True} for name in _RELATIONS if rng.random() < 0.3},
            )
        )
    image = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    return Scene(image=image, size=(_SIDE, _SIDE), objects=tuple(objects), complete=True)
