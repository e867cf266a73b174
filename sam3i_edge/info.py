"""What a `Segmenter` tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a `Segmenter` runs.

    Attributes:
        model: name of the bundle.
        bundle: its folder.
        variant: the variant of the bundle that was opened.
        device: profile that runs.
        runtime: runtime that runs.
        precision: precision that runs.
        reason: one sentence: what was asked for, and what "auto" chose.
        image_size: side of the square that images are resized to, pixels.
        threshold: least score of an instance when a call names none.
        boxes: most boxes of one call; 0 where the model takes no box prompts.
    """

    model: str
    bundle: Path
    variant: str
    device: str
    runtime: str
    precision: str
    reason: str
    image_size: int
    threshold: float
    boxes: int
