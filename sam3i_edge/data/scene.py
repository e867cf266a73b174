"""A picture, the objects in it, and how much of it is known: what every source gives, whatever it was.

Instructions are written from this alone. What is not known is said: an attribute that is None or missing, a
relation without a name, a category that is not `listed`. `truth` decides what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.pipeline.preprocess import load_image


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneObject:
    """One object.

    Attributes:
        category: its class, as the vocabulary calls it ("mug"); one that no vocabulary knows is asked for by
            this name alone.
        attributes: values by attribute ("color": "red"); None or missing where nobody can say.
        box: (x0, y0, x1, y1) px around the visible mask, x1 and y1 exclusive.
        center: (x, y) px: of the whole object where it is known, else of what is visible.
        mask: bool [H, W], what is visible of it; at least one pixel.
        full_size: (width, height) px of the upright box around the whole object, what hides it left out of
            account; None where only the visible part is known.
        visible: share of it that shows, 0..1, the rest hidden or beyond the picture's edge; None: unknown.
        depth: distance from the camera along the optical axis, any unit that a scene keeps to; None: unknown.
        relations: verdicts by name and by the other object's index: {"on": {3: True}, "next to": {5: None}}.
            A name that is missing says nothing; an index missing under a name says no; None cannot say.
    """

    category: str
    attributes: Mapping[str, str | None]
    box: tuple[float, float, float, float]
    center: tuple[float, float]
    mask: NDArray[np.bool_]
    full_size: tuple[float, float] | None = None
    visible: float | None = None
    depth: float | None = None
    relations: Mapping[str, Mapping[int, bool | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A picture and its objects.

    Attributes:
        image: uint8 [H, W, 3] RGB, or the file that holds it.
        size: (height, width) px.
        objects: in the order of their numbers.
        complete: whether everything in the picture that could be meant is among the objects.
        listed: categories of which every instance is among the objects though the scene is not complete; one
            without an object is certainly absent.
        crowds: categories of which some instances are only marked as a crowd; never asked for.
    """

    image: NDArray[np.uint8] | Path
    size: tuple[int, int]
    objects: tuple[SceneObject, ...]
    complete: bool
    listed: frozenset[str] = frozenset()
    crowds: frozenset[str] = frozenset()

    @property
    def masks(self) -> NDArray[np.bool_]:
        """What is visible of every object, bool [N, H, W], put together by each call."""
        stack = np.zeros((len(self.objects), *self.size), np.bool_)
        for row, item in zip(stack, self.objects, strict=True):
            row[...] = item.mask
        return stack

    def pixels(self) -> NDArray[np.uint8]:
        """The picture, uint8 [H, W, 3] RGB; read from its file by each call.

        Raises:
            ImageError: the file is missing or no picture.
        """
        return load_image(self.image) if isinstance(self.image, Path) else self.image
