"""Calibration pairs from a folder in SAM3-I's layout."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from sam3i_edge.agreement import Pair
from sam3i_edge.data.annotations import ANNOTATIONS, IMAGES, read_annotations
from sam3i_edge.errors import DataError
from sam3i_edge.levels import Level
from sam3i_edge.pipeline.preprocess import load_image
from sam3i_edge.quantize.calibration import CALIBRATION_PAIRS


def recorded_pairs(folder: Path, most: int = CALIBRATION_PAIRS, an_image: int = 6) -> list[Pair]:
    """(Image, instruction) pairs, picture by picture, the levels in turn.

    Args:
        folder: holds `annotations.json` and `images/`.
        most: pairs at most.
        an_image: of one picture at most; fewer where `most` would not reach every picture.

    Raises:
        DataError: the annotation file is missing, breaks the layout, or has no instruction.
        ImageError: a picture is missing or cannot be read.
    """
    texts: dict[str, list[tuple[Level, str]]] = defaultdict(list)
    for record in read_annotations(folder / ANNOTATIONS):
        levels: dict[Level, list[str]] = {
            "concept": record.concept,
            "simple": record.simple,
            "complex": record.complex,
        }
        texts[record.file_name] += [(level, found[0]) for level, found in levels.items() if found]
    an_image = max(1, min(an_image, -(-most // max(len(texts), 1))))
    pairs: list[Pair] = []
    for name, asked in texts.items():
        image = load_image(folder / IMAGES / name) if asked else None
        for level, text in asked[:an_image]:
            if image is not None and len(pairs) < most:
                pairs.append(Pair(image, text, level, "all"))
        if len(pairs) >= most:
            break
    if not pairs:
        raise DataError(
            f"{folder / ANNOTATIONS} has no instruction to calibrate on: give a SAM3-I annotation file whose "
            "images carry text_inst_input"
        )
    return pairs
