"""What stands on a table: one generator a category, all sizes in metres.

A generator takes a random generator and gives an `Object` that stands (or lies) on z = 0 around the origin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from household import apple, book, bread, camera, carton, phone, remote, sphere
from numpy.random import Generator
from objects import Object
from tools import flashlight, fork, hammer, knife, scissors, screwdriver, spoon, stapler
from vessels import bottle, bowl, can, candle, cup, glass, jar, kettle, mug, pan, plant, plate, pot, teapot

MAKERS: dict[str, Callable[[Generator], Object]] = {
    "mug": mug, "cup": cup, "glass": glass, "bottle": bottle, "can": can, "bowl": bowl, "plate": plate,
    "pan": pan, "pot": pot, "kettle": kettle, "teapot": teapot, "jar": jar, "fork": fork, "knife": knife,
    "spoon": spoon, "scissors": scissors, "hammer": hammer, "screwdriver": screwdriver, "book": book,
    "box": carton, "phone": phone, "remote control": remote, "camera": camera, "ball": sphere, "apple": apple,
    "bread": bread, "plant": plant, "candle": candle, "flashlight": flashlight, "stapler": stapler,
}  # fmt: skip


def make(category: str, number: int) -> Object:
    """The mesh of this number, always the same; standing on z = 0, its middle over the origin."""
    found = MAKERS[category](np.random.default_rng((0x7AB1E, *category.encode(), number)))
    low, high = found.corners
    shift = (-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, -low[2])
    if found.inside or found.top:  # what holds others keeps their place over the origin
        shift = (0.0, 0.0, -low[2])
    return replace(found, parts=tuple(part.moved(shift) for part in found.parts))
