"""Pictures in shards: what is asked of them, and one shard's work, which any process can do, anywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from sam3i_edge.errors import DataError, ImageError
from sam3i_edge.inputs.find import find_inputs
from sam3i_edge.inputs.picture import Picture
from sam3i_edge.label.merge import merged
from sam3i_edge.levels import Level
from sam3i_edge.segmenter import Segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConfig:
    """What is labelled, by what: equal ones write equal files.

    Attributes:
        pictures: a folder, or a file or pattern, of pictures.
        instructions: each is a category, in this order.
        model: as of `Segmenter`, and the next three.
        device, precision, runtime: likewise.
        level: as of `Segmenter.segment`.
        threshold: a label's least score, 0 to 1.
        margin: of scores around the threshold that are uncertain, 0 to 1; see `label.merge`.
        duplicates: largest mask IoU of two labels, 0 to 1.
        threads: of a process; None takes one a core. The files do not depend on it.
        shard: pictures that are kept together, or done again together; nor on it.
    """

    pictures: str
    instructions: tuple[str, ...]
    model: str = "sam3i-nano"
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    level: Level | Literal["auto"] = "auto"
    threshold: float = 0.5
    margin: float = 0.15
    duplicates: float = 0.7
    threads: int | None = None
    shard: int = 64

    def __post_init__(self) -> None:
        if not self.instructions or len(set(self.instructions)) != len(self.instructions):
            raise ValueError(f"want instructions, each once, got {list(self.instructions)}")
        for name in ("threshold", "margin", "duplicates"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be 0 to 1, got {getattr(self, name)}")
        if self.shard < 1:
            raise ValueError(f"shard must be at least 1, got {self.shard}")


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's work, done.

    Attributes:
        number: of the shard.
        lines: JSON, a line a picture: name and error, or name, size (height, width) and results, of `merged`.
    """

    number: int
    lines: str


@cache
def pictures_of(config: LabelConfig) -> tuple[Picture, ...]:
    """The pictures of a config, in order, listed once a process.

    Raises:
        DataError: there are none, or videos among them.
    """
    inputs = find_inputs([config.pictures], stdin=lambda: b"")
    moving = [one.name for one in inputs if one.moving]
    if moving or config.pictures == "-":
        raise DataError(f"labels are for pictures in files, and {(moving or ['-'])[0]} is none")
    return tuple(picture for one in inputs for picture in one.pictures())


@cache
def _segmenter(config: LabelConfig) -> Segmenter:
    return Segmenter(
        config.model, config.device, config.precision, config.runtime, threads=config.threads, image_cache=0
    )


def shard_count(config: LabelConfig) -> int:
    """Shards of a config."""
    return -(-len(pictures_of(config)) // config.shard)


def work(config: LabelConfig, number: int) -> Shard:
    """Labels the pictures of a shard; equal arguments give an equal shard, wherever.

    Raises:
        DataError: the pictures have gone.
        Sam3iError: the model cannot be opened or run.
    """
    places = pictures_of(config)[number * config.shard : (number + 1) * config.shard]
    lines = (json.dumps(_line(config, picture), allow_nan=False) for picture in places)
    return Shard(number, "".join(line + "\n" for line in lines))


def _line(config: LabelConfig, picture: Picture) -> dict[str, Any]:
    try:
        pixels = picture.read()
    except ImageError as error:
        return {"name": picture.name, "error": str(error)}
    results = _segmenter(config).segment(
        pixels,
        list(config.instructions),
        level=config.level,
        threshold=max(0.0, config.threshold - config.margin),
    )
    entries = merged(results, threshold=config.threshold, margin=config.margin, duplicates=config.duplicates)
    return {"name": picture.name, "size": list(pixels.shape[:2]), "results": entries}
