"""From a rendered scene to what is kept: a picture as a camera takes it, and a line of the scene file.

The line is JSON, one object a picture:
    file, size [H, W], complete (whether everything that can be seen is listed), renderer, seed, held_out,
    objects: category; attributes (color, pose, material; null where it cannot be said); box
        [x0, y0, x1, y1] px, x1 and y1 exclusive; center [x, y] px of the visible pixels; depth, metres along
        the optical axis; visible, share of its outline 0..1; mask, compressed run lengths as in COCO; mesh,
        its name in the catalogue
    relations: [subject, "on" | "in" | "next to" | "behind" | "in front of", object], numbers of objects
    unsure: likewise, those that cannot be said; judged: the names of which every other pair does not hold
    view: elevation and field of view, degrees; distance, metres
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from setting import Setting

_LEAST = 12  # pixels; below it an object is not seen
_BEHIND = 0.06  # metres of depth between the nearest edges of two objects, one behind the other
_JUDGED = ("on", "in", "next to", "behind", "in front of")


def record(
    setting: Setting,
    identities: NDArray[np.int64],
    visible: NDArray[np.float64],
    *,
    file: str,
    renderer: str,
    held_out: bool,
) -> dict[str, Any] | None:
    """The line of one picture; None where nothing is visible."""
    seen = [n for n in range(len(setting.objects)) if np.count_nonzero(identities == n) >= _LEAST]
    if not seen:
        return None
    place = {n: k for k, n in enumerate(seen)}
    holds, open_ = _depth_relations(setting, identities, seen)
    relations, unsure = (
        [[place[a], name, place[b]] for a, name, b in found if a in place and b in place]
        for found in (setting.relations() + holds, setting.unsure() + open_)
    )
    return {
        "file": file,
        "size": list(identities.shape),
        "complete": True,
        "renderer": renderer,
        "seed": setting.seed,
        "held_out": held_out,
        "objects": [_object(setting, n, identities == n, float(visible[n])) for n in seen],
        "relations": relations,
        "unsure": unsure,
        "judged": list(_JUDGED),
        "view": {key: round(getattr(setting.view, key), 4) for key in ("elevation", "fov", "distance")},
    }


def _object(setting: Setting, number: int, mask: NDArray[np.bool_], visible: float) -> dict[str, Any]:
    thing = setting.objects[number]
    rows, columns = np.nonzero(mask)
    runs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "category": thing.category,
        "attributes": {
            "color": thing.color,
            "pose": "lying" if thing.lying else "standing" if thing.stands else None,
            "material": thing.material,
        },
        "box": [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1],
        "center": [round(float(columns.mean()) + 0.5, 2), round(float(rows.mean()) + 0.5, 2)],
        "depth": round(setting.view.depth(np.array([*thing.middle, thing.position[2]])), 4),
        "visible": round(visible, 3),
        "mask": {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")},
        "mesh": thing.entry,
    }


def _depth_relations(
    setting: Setting, identities: NDArray[np.int64], seen: list[int]
) -> tuple[list[tuple[int, str, int]], list[tuple[int, str, int]]]:
    """Behind and in front of, those that hold and those that cannot be said.

    They hold for things on the table that overlap from left to right, one clearly farther away. What is
    clearly nearer is not behind; all between is open.
    """
    spans = {n: np.flatnonzero((identities == n).any(0))[[0, -1]] for n in seen}
    depths = {n: setting.view.depth(np.array([*setting.objects[n].middle, 0.0])) for n in seen}
    holds, unsure = [], []
    for a in seen:
        for b in seen:
            one, two = setting.objects[a], setting.objects[b]
            margin = one.radius * 0.5 + two.radius * 0.5 + _BEHIND
            gap = depths[a] - depths[b]  # of a behind b
            if a == b or gap < -margin:
                continue
            shared = min(spans[a][1], spans[b][1]) - max(spans[a][0], spans[b][0])
            narrow = min(np.ptp(spans[a]), np.ptp(spans[b])) + 1
            clear = not one.support and not two.support and gap > margin and shared > 0.5 * narrow
            (holds if clear else unsure).extend([(a, "behind", b), (b, "in front of", a)])
    return holds, unsure


def photograph(picture: NDArray[np.uint8], setting: Setting) -> NDArray[np.uint8]:
    """What the camera adds: motion blur and noise, from the scene's seed."""
    rng = np.random.default_rng((0xCA3E, setting.seed))
    taken = picture.astype(np.float32)
    if setting.blur:
        length = int(2 * np.ceil(setting.blur) + 1)
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        for step in np.linspace(-setting.blur / 2, setting.blur / 2, 9):
            x, y = (round(length // 2 + step * float(turn(angle))) for turn in (np.cos, np.sin))
            kernel[y, x] += 1
        taken = cv2.filter2D(taken, -1, kernel / kernel.sum())
    if setting.noise:
        taken += rng.normal(0, setting.noise, taken.shape).astype(np.float32)
    return np.clip(taken + 0.5, 0, 255).astype(np.uint8)
