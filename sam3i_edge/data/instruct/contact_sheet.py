"""Random pairs of a run in one picture: whoever looks at it sees what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.records import Record
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.masks import overlay
from sam3i_edge.masks.caption import BACKDROP, add_caption
from sam3i_edge.pipeline.preprocess import load_image

SHEET: Final = "contact-sheet.png"
PAIRS: Final = 24
_COLUMNS: Final = 6
_SIDE: Final = 320  # pixels of a picture's longer side


def draw_sheet(path: Path, images: Path, records: Iterable[Record], seed: int) -> None:
    """Draws 24 random instructions of the records with their targets, or all where there are fewer.

    Args:
        path: a PNG file, replaced when it is whole.
        images: folder of the pictures.
        records: gone through twice.
        seed: decides which.
    """
    count = sum(1 for _ in _asked(records))
    chosen = set(np.random.default_rng(seed).choice(count, min(PAIRS, count), replace=False).tolist())
    tiles = [
        _tile(images, record, level, text)
        for number, (record, level, text) in enumerate(_asked(records))
        if number in chosen
    ]
    if not tiles:
        return
    rows = [tiles[first : first + _COLUMNS] for first in range(0, len(tiles), _COLUMNS)]
    overlay.write(np.concatenate([_row(row) for row in rows]), path)


def _asked(records: Iterable[Record]) -> Iterator[tuple[Record, Level, str]]:
    """The instructions of the records; concepts of part of a class are no instructions for it."""
    for record in records:
        for level in LEVELS:
            if level != "concept" or record.granularity not in ("one", "subset"):
                for text in getattr(record, level):
                    yield record, level, text


def _tile(images: Path, record: Record, level: Level, text: str) -> NDArray[np.uint8]:
    image = load_image(images / record.file_name)
    scale = _SIDE / max(image.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    for number, mask in enumerate(record.masks()):
        color = overlay.PALETTE[number % len(overlay.PALETTE)]
        small = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        # Outlined, not filled: whoever looks has to see whether it is red.
        contours, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, color, 2)
    canvas = np.full((_SIDE, _SIDE, 3), BACKDROP, np.uint8)
    top, left = (_SIDE - picture.shape[0]) // 2, (_SIDE - picture.shape[1]) // 2
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    note = f"{level}, {record.granularity or 'granularity unknown'}"
    return add_caption(canvas, text, note, scale=0.5, weight=1, margin=4)


def _row(tiles: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height = max(len(tile) for tile in tiles)
    row = np.full((height, _COLUMNS * _SIDE, 3), BACKDROP, np.uint8)
    for number, tile in enumerate(tiles):
        row[: len(tile), number * _SIDE : (number + 1) * _SIDE] = tile
    return row
