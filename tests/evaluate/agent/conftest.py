"""A segmenter that knows what each phrase finds in a picture of three things, and records about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sam3i_edge.data.records import Annotation, Record
from sam3i_edge.masks import rle

SIZE = (60, 90)
THINGS = {"red mug": slice(5, 25), "blue mug": slice(35, 55), "plate": slice(65, 85)}


def mask_of(*names: str) -> np.ndarray:
    """The things' masks, [N, H, W]."""
    masks = np.zeros((len(names), *SIZE), bool)
    for mask, name in zip(masks, names, strict=True):
        mask[20:40, THINGS[name]] = True
    return masks


@dataclass
class Segmenter:
    """What the concept level gives for a phrase; nothing for one that is not here."""

    finds: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "mug": ("red mug", "blue mug"),
            "cup": ("blue mug",),
            "plate": ("plate",),
            "red mug": ("red mug",),
        }
    )
    asked: list[tuple[str, str]] = field(default_factory=list)
    info: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(threshold=0.5))

    def encode(self, image: Path):
        return SimpleNamespace(
            image=np.full((*SIZE, 3), 128, np.uint8), image_size=SIZE, segment=self._segment, file=image
        )

    def _segment(self, text, *, level, threshold):
        self.asked.append((text, level))
        masks = mask_of(*self.finds.get(text, ()))
        return SimpleNamespace(masks=masks, threshold=threshold, presence=1.0, level=level)


@pytest.fixture
def segmenter() -> Segmenter:
    return Segmenter()


@pytest.fixture
def images(tmp_path) -> Path:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((*SIZE, 3), 128, np.uint8))
    return tmp_path


@pytest.fixture
def records() -> list[Record]:
    """Three sets of targets, and one text that nothing fits."""
    return [
        _record(1, ("red mug",), "the mug on the left", "what holds red tea", "one"),
        _record(2, ("blue mug", "plate"), "", "everything on the right", "subset"),
        _record(3, ("red mug", "blue mug"), "all mugs", "what one drinks from", "all"),
        _record(4, (), "the green mug", "what one cuts with", "none"),
    ]


def _record(number, things, simple, complex_, granularity) -> Record:
    names = ["mug" if name.endswith("mug") else name for name in things]
    return Record(
        image_id=number,
        file_name="a.png",
        width=SIZE[1],
        height=SIZE[0],
        concept=list(dict.fromkeys(names)),
        simple=[simple] if simple else [],
        complex=[complex_],
        granularity=granularity,
        annotations=tuple(
            Annotation(id=10 * number + place, category=name, bbox=None, segmentation=rle.encode(mask))
            for place, (name, mask) in enumerate(zip(names, mask_of(*things), strict=True))
        ),
    )
