"""A folder of scene files made of drawn scenes, with a few things that nobody knows."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.masks import rle


def write(folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (96, 128)) -> Path:
    """Scenes of `shapes`; the first object of each has no known colour."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(count):
        scene = draw_scene(np.random.default_rng((seed, number)), size, objects=4)
        name = f"{number:03d}.png"
        cv2.imwrite(str(folder / "images" / name), np.ascontiguousarray(scene.image[..., ::-1]))
        objects = [
            {
                "category": item.shape,
                "attributes": {"color": item.color if index else None, "size": item.size, "fill": item.fill},
                "box": item.box,
                "center": item.center,
                "depth": 1.0 + index,
                "mask": rle.encode(scene.masks[index]),
            }
            for index, item in enumerate(scene.objects)
        ]
        line = {"file": name, "size": list(size), "complete": True, "objects": objects, "relations": []}
        lines.append(json.dumps(line) + "\n")
    (folder / "scenes.jsonl").write_text("".join(lines))
    return folder
