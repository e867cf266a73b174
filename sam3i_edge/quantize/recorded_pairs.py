"""Calibration pairs from a folder in SAM3-I's layout."""

from __future__ import annotations

from collections import defaultdict, deque
from pathlib import Path

from sam3i_edge.agreement import Pair
from sam3i_edge.data.annotations import ANNOTATIONS, IMAGES, read_annotations
from sam3i_edge.errors import DataError
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.pipeline.preprocess import load_image
from sam3i_edge.quantize.calibration import CALIBRATION_PAIRS


def recorded_pairs(folder: Path, most: int = CALIBRATION_PAIRS, an_image: int = 6) -> list[Pair]:
    """(Image, instruction) pairs, picture by picture. Levels take turns, so few pairs have all of them too.

    Args:
        folder: holds `annotations.json` and `images/`.
        most: pairs at most.
        an_image: of one picture at most; fewer where `most` would not reach every picture.

    Raises:
        DataError: the annotation file is missing, breaks the layout, or has no instruction.
        ImageError: a picture is missing or cannot be read.
    """
    texts: dict[Level, dict[str, deque[str]]] = {level: defaultdict(deque) for level in LEVELS}
    for record in read_annotations(folder / ANNOTATIONS):
        levels: dict[Level, list[str]] = {
            "concept": record.concept,
            "simple": record.simple,
            "complex": record.complex,
        }
        for level, found in levels.items():
            if found:
                texts[level][record.file_name].append(found[0])
    names = dict.fromkeys(name for by_name in texts.values() for name in by_name)
    if not names:
        raise DataError(
            f"{folder / ANNOTATIONS} has no instruction to calibrate on: give a SAM3-I annotation file whose "
            "images carry text_inst_input"
        )
    an_image = max(1, min(an_image, -(-most // len(names))))
    asked: dict[str, list[tuple[Level, str]]] = {name: [] for name in names}
    queues = {level: deque(by_name) for level, by_name in texts.items()}  # the pictures that still have some
    taken = dict.fromkeys(LEVELS, 0)
    while sum(taken.values()) < most and any(queues.values()):
        level = min((level for level in LEVELS if queues[level]), key=taken.__getitem__)
        name = queues[level].popleft()
        if len(asked[name]) < an_image:
            asked[name].append((level, texts[level][name].popleft()))
            taken[level] += 1
            if texts[level][name]:
                queues[level].append(name)
    pairs: list[Pair] = []
    for name, some in asked.items():
        if some:
            image = load_image(folder / IMAGES / name)
            pairs += [Pair(image, text, level, "all") for level, text in some]
    return pairs
