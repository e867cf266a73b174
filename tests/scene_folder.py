"""A folder of scene files made of drawn scenes, with a few things that nobody knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sam3i_edge.data.scene import Scene
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources import write_scene_file


def write(folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (96, 128)) -> Path:
    """Scenes of `shapes`; the first object of each has no known colour, and all stand behind each other."""

    def scene(number: int) -> Scene:
        drawn = draw_scene(np.random.default_rng((seed, number)), size, objects=4)
        objects = [replace(item, depth=1.0 + index) for index, item in enumerate(drawn.objects)]
        objects[0] = replace(objects[0], attributes={**objects[0].attributes, "color": None})
        return replace(drawn, objects=tuple(objects))

    write_scene_file(folder, map(scene, range(count)), names=(f"{number:03d}.png" for number in range(count)))
    return folder
