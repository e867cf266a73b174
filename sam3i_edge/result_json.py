"""The JSON of a `Result`, checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.levels import Level, LevelChooser
from sam3i_edge.masks import rle


class _Read(BaseModel):
    """Keys that it does not know are ignored: a later version may write more."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Mask(_Read):
    """COCO run lengths, `counts` compressed."""

    size: list[int]
    counts: str


class Instance(_Read):
    """One instance; `track_id` in streams only."""

    score: float
    box: list[float]
    mask: Mask
    track_id: int | None = None


class ResultJson(_Read):
    """What `Result.to_dict` gives."""

    image_size: list[int]
    instruction: str | None
    level: Level
    level_chosen_by: LevelChooser
    presence: float
    instances: list[Instance]
    timings_ms: dict[str, float]
    device: str
    runtime: str
    precision: str
    model: str
    threshold: float
    truncated: bool
    tokens_cut: int
    notes: list[str] = []  # results that were written before there were notes

    @model_validator(mode="after")
    def _fits(self) -> ResultJson:
        if len(self.image_size) != 2:
            raise ValueError(f"image_size is {self.image_size}, want height and width")
        for instance in self.instances:
            if instance.mask.size != self.image_size:
                height, width = self.image_size
                raise ValueError(f"a mask of the image {height} x {width} has size {instance.mask.size}")
            if len(instance.box) != 4:
                raise ValueError(f"a box has {len(instance.box)} sides, want 4")
            rle.area(instance.mask.model_dump())  # sound, and fills the image exactly
        return self


def read_result(data: Mapping[str, Any]) -> ResultJson:
    """Checks the plain values of a result.

    Raises:
        ValueError: a key is missing or of the wrong kind, or a mask is not of the image's size.
    """
    try:
        return ResultJson.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"this JSON is no result: {first_problem(error)}") from error


def short(value: np.float32) -> float:
    """The shortest decimal that reads back as the same float32: 0.9, not 0.8999999761581421."""
    return float(str(np.float32(value)))
