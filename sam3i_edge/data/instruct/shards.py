"""A source in shards: what is asked of it, and one shard's work, which any process of any machine can do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from sam3i_edge.data.annotations import as_json
from sam3i_edge.data.instruct.picture import Written, as_records, review_item, write_picture
from sam3i_edge.data.language_model.rewriting import Rewritten
from sam3i_edge.data.records import Record
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.sources.open import open_source
from sam3i_edge.data.sources.source import Source
from sam3i_edge.data.vocabulary import Vocabulary, load_vocabulary
from sam3i_edge.errors import DataError, ImageError
from sam3i_edge.levels import LEVELS, Level, as_level

_MOST: Final = 1_000  # instructions of a picture, or pictures of a shard


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructConfig:
    """What is written, of what: equal ones write equal files.

    Attributes:
        source: file or folder of annotated pictures.
        images: folder of the pictures; "" looks for it beside the source.
        instances: of RefCOCO's references; "" takes `instances.json` beside them.
        split: of RefCOCO; "" takes all.
        pixel_colors: whether pixels tell a colour of which the source says nothing.
        vocabulary: name or JSON file.
        levels: asked for.
        per_image: instructions of a picture, at most.
        review: of a picture, instructions that are not proven, at most.
        seed: decides what is drawn.
        shard: pictures that are kept together, or done again together; the files do not depend on it.
    """

    source: str
    images: str = ""
    instances: str = ""
    split: str = ""
    pixel_colors: bool = False
    vocabulary: str = "coco"
    levels: tuple[Level, ...] = LEVELS
    per_image: int = 12
    review: int = 1
    seed: int = 0
    shard: int = 64

    def __post_init__(self) -> None:
        for level in self.levels:
            as_level(level)
        if not self.levels or len(set(self.levels)) != len(self.levels):
            known = ", ".join(LEVELS)
            raise ValueError(f"levels must be some of {known}, each once, got {list(self.levels)}")
        for name, least in (("per_image", 1), ("review", 0), ("shard", 1)):
            if not least <= getattr(self, name) <= _MOST:
                raise ValueError(f"{name} must be {least} to {_MOST:,}, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's work, done.

    Attributes:
        number: of the shard.
        lines: JSON, a line a picture: see `_line`.
        pictures: name -> PNG file, of pictures that lie in no file.
        instructions: how many were written.
        waiting: how many a language model has not answered for; their shard is done again by the next run.
    """

    number: int
    lines: str
    pictures: Mapping[str, bytes]
    instructions: int
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a shard.

    Attributes:
        name: in the source.
        scene: what is known of it, None where it could not be read.
        written: its instructions; none where it could not be read.
        own: instructions of the source itself.
        left_out: why it could not be read, or None.
        content: PNG file, where the picture lies in no file.
    """

    name: str
    scene: Scene | None
    written: Written
    own: tuple[Record, ...] = ()
    left_out: str | None = None
    content: bytes | None = None


Reword = Callable[[Iterable[Picture]], Iterator[tuple[Picture, Rewritten | None]]]
"""Gives the pictures in their order, each with what a language model, if it was asked, made of it."""


@cache
def opened(config: InstructConfig) -> tuple[Source, Vocabulary]:
    """The source and the vocabulary of a config, once a process.

    Raises:
        DataError: one of them is missing or breaks its layout.
        ValueError: `instances` or `split` is given for another kind than RefCOCO.
    """
    vocabulary = load_vocabulary(config.vocabulary)
    source = open_source(
        config.source,
        vocabulary,
        images=config.images or None,
        instances=config.instances or None,
        split=config.split or None,
        pixel_colors=config.pixel_colors,
    )
    return source, vocabulary


def shard_count(config: InstructConfig) -> int:
    """Shards of a source."""
    return -(-len(opened(config)[0]) // config.shard)


def shard_places(config: InstructConfig, number: int) -> range:
    """The pictures of a shard."""
    return range(number * config.shard, min((number + 1) * config.shard, len(opened(config)[0])))


def as_written(pictures: Iterable[Picture]) -> Iterator[tuple[Picture, Rewritten | None]]:
    """A `Reword` that asks nobody."""
    return ((picture, None) for picture in pictures)


def work(config: InstructConfig, number: int, reword: Reword = as_written) -> Shard:
    """Writes the instructions of a shard; equal arguments give an equal shard, wherever.

    Raises:
        DataError: the source has changed.
    """
    found = list(reword(_picture(config, place) for place in shard_places(config, number)))
    _, vocabulary = opened(config)
    lines = [_line(picture, vocabulary, done) for picture, done in found]
    return Shard(
        number,
        "".join(line + "\n" for line, _ in lines),
        {picture.name: picture.content for picture, _ in found if picture.content is not None},
        sum(count for _, count in lines),
        sum(done.waiting for _, done in found if done is not None),
    )


def _picture(config: InstructConfig, place: int) -> Picture:
    source, vocabulary = opened(config)
    name = source.file_name(place)
    try:
        scene = source.scene(place)
        pixels = scene.pixels()
        if pixels.shape[:2] != scene.size:
            found, wanted = (f"{width} x {height}" for height, width in (pixels.shape[:2], scene.size))
            raise DataError(f"{name} is {found} px, its annotations say {wanted}")
        own = source.records(place)
        written = write_picture(
            scene,
            vocabulary,
            np.random.default_rng((config.seed, place)),
            levels=config.levels,
            most=config.per_image,
            review=config.review,
        )
    except (DataError, ImageError) as error:
        return Picture(name, None, Written((), ()), left_out=str(error))
    content = None
    if not isinstance(scene.image, Path):
        content = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes()
    return Picture(name, scene, written, own, content=content)


def _line(picture: Picture, vocabulary: Vocabulary, done: Rewritten | None) -> tuple[str, int]:
    """A picture's line, and how many instructions it has.

    file; left_out: why the picture has nothing, or null; texts: level, granularity, form and family of each
    instruction; dropped: reasons and counts; waiting: how many wait for a language model; annotations: those
    of the picture as a file of its own; review: lines of `review.jsonl`.
    """
    name, scene = picture.name, picture.scene
    if scene is None:
        return json.dumps({"file": name, "left_out": picture.left_out}), 0
    instructions, review = picture.written.instructions, picture.written.review
    dropped = Counter(picture.written.dropped)
    if done is not None and not done.waiting:  # else all of it comes in another run
        instructions, review = (*instructions, *done.instructions), (*review, *done.unproven)
        dropped.update({f"language model: {why}": count for why, count in done.dropped.items()})
    records = as_records(scene, vocabulary, instructions, name)
    records = list(numbered([*records, *(replace(record, file_name=name) for record in picture.own)]))
    texts = [(i.level, i.granularity, i.form, i.family) for i in instructions]
    for record in picture.own:
        for level in LEVELS:
            texts += [(level, record.granularity or "all", "", "source") for _ in getattr(record, level)]
    content = {
        "file": name,
        "left_out": None,
        "texts": texts,
        "dropped": dict(sorted(dropped.items())),
        "waiting": 0 if done is None else done.waiting,
        "annotations": as_json(records),
        "review": [review_item(scene, item, name) for item in review],
    }
    return json.dumps(content, separators=(",", ":")), len(texts)


def numbered(records: Iterable[Record], first: int = 1, first_target: int = 1) -> Iterator[Record]:
    """The records with ids that count on from these."""
    for number, record in enumerate(records, start=first):
        targets = tuple(replace(a, id=first_target + i) for i, a in enumerate(record.annotations))
        first_target += len(targets)
        yield replace(record, image_id=number, annotations=targets)
