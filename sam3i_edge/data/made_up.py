"""Scenes without a picture, of any vocabulary: enough to write instructions, where only the words matter."""

from __future__ import annotations

import numpy as np

from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.vocabulary import CATEGORY, Vocabulary

_SIDE = 96  # px
_OBJECTS = (3, 8)
_SAME = 0.4  # of the objects: of a category that is there already


def made_up(vocabulary: Vocabulary, rng: np.random.Generator) -> Scene:
    """A complete scene of three to eight objects in free places, all of whose attributes are known.

    Its image is black. On a plane (`Vocabulary.flat`) no depths are known, elsewhere all.
    """
    objects: list[SceneObject] = []
    for _ in range(int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1))):
        width, height = (int(side) for side in rng.integers(8, 30, size=2))
        x, y = int(rng.integers(0, _SIDE - width)), int(rng.integers(0, _SIDE - height))
        mask = np.zeros((_SIDE, _SIDE), np.bool_)
        mask[y : y + height, x : x + width] = True
        repeated = bool(objects) and rng.random() < _SAME
        category = (
            objects[int(rng.integers(len(objects)))].category
            if repeated
            else str(rng.choice(vocabulary.attributes[CATEGORY]))
        )
        objects.append(
            SceneObject(
                category=category,
                attributes={
                    name: str(rng.choice(values))
                    for name, values in vocabulary.attributes.items()
                    if name != CATEGORY
                },
                box=(x, y, x + width, y + height),
                center=(x + width / 2, y + height / 2),
                mask=mask,
                full_size=(width, height),
                visible=1.0,
                depth=None if vocabulary.flat else float(rng.uniform(0.5, 4.0)),
            )
        )
    image = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    return Scene(image=image, size=(_SIDE, _SIDE), objects=tuple(objects), complete=True)
