"""What one instruction found in one image, and its converters."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.install_hint import install_hint
from sam3i_edge.levels import Level, LevelChooser, as_level
from sam3i_edge.masks import rle
from sam3i_edge.masks.lazy import Index, LazyMasks, rows_of
from sam3i_edge.masks.outline import Polygon
from sam3i_edge.pipeline.postprocess import read_only
from sam3i_edge.pipeline.preprocess import ImageSource, load_image
from sam3i_edge.pipeline.prompt import VISUAL
from sam3i_edge.result_json import read_result, short

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Result:
    """The instances that an instruction describes or boxes show, best first; none is a normal answer.

    Immutable: arrays are read-only, and copied on the way in unless they are so already. Everything is
    numpy. Masks are kept as the detector's small logits (or as run lengths, when read from JSON) and made at
    the size of the image when first asked for. May be shared by threads, copied and pickled.

    Attributes:
        image_size: (H, W), pixels.
        instruction: what was asked for; None when it was asked by boxes alone.
        level: the level at which it was answered.
        level_chosen_by: "caller"; where it was "auto", "router" when the bundle's learned router chose,
            "auto" when the rules of `levels.route` did.
        presence: probability 0..1 that the image holds it at all.
        scores: [N] float32, 0..1, descending unless indexed otherwise.
        boxes: [N, 4] float32, (x0, y0, x1, y1), pixels.
        mask_logits: [N, M, M] float32, above 0 inside; None when the masks came as run lengths.
        mask_counts: N strings, COCO's compressed run lengths; None when there are logits.
        track_ids: [N] int64 from 1, the same for the same thing in every frame of a stream, 0 where the
            tracker has not decided; None elsewhere.
        threshold: scores at or below it were dropped.
        truncated: all of the detector's queries passed, so there may be more instances than it can return.
        tokens_cut: tokens dropped from the end of a too long instruction.
        timings_ms: step -> milliseconds.
        model: name of the bundle.
        device: device that ran.
        runtime: runtime that ran.
        precision: precision that ran.
        notes: what the model's bundle wants its users to know, such as what it was trained on.
        image: [H, W, 3] uint8 RGB, for `save`; not in the JSON. `dataclasses.replace(result, image=None)`
            lets go of it.
    """

    image_size: tuple[int, int]
    instruction: str | None
    level: Level
    level_chosen_by: LevelChooser
    presence: float
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    mask_logits: NDArray[np.float32] | None = None
    mask_counts: tuple[str, ...] | None = None
    track_ids: NDArray[np.int64] | None = None
    threshold: float
    truncated: bool = False
    tokens_cut: int = 0
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    model: str
    device: str
    runtime: str
    precision: str
    notes: tuple[str, ...] = ()
    image: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        count = len(self.scores)
        as_level(self.level)
        if self.level_chosen_by not in (choosers := get_args(LevelChooser)):
            raise ValueError(
                f"level_chosen_by must be one of {', '.join(choosers)}, got {self.level_chosen_by!r}"
            )
        if (self.mask_logits is None) == (self.mask_counts is None):
            raise ValueError("a Result needs either mask_logits or mask_counts, not both")
        self._freeze("scores", np.float32, (count,))
        self._freeze("boxes", np.float32, (count, 4))
        height, width = (int(side) for side in self.image_size)
        if height < 1 or width < 1:
            raise ValueError(f"image_size must be at least 1 x 1, got {self.image_size}")
        if self.mask_logits is not None:
            self._freeze("mask_logits", np.float32, (count, *self.mask_logits.shape[-2:]))
        elif self.mask_counts is not None and len(self.mask_counts) != count:
            raise ValueError(f"{count} scores, but {len(self.mask_counts)} masks")
        if self.track_ids is not None:
            self._freeze("track_ids", np.int64, (count,))
        if self.image is not None:
            self._freeze("image", np.uint8, (height, width, 3))
        object.__setattr__(self, "image_size", (height, width))
        object.__setattr__(self, "notes", tuple(self.notes))
        object.__setattr__(self, "timings_ms", MappingProxyType(dict(self.timings_ms)))

    def _freeze(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        given = getattr(self, name)
        shared = isinstance(given, np.ndarray) and not given.flags.writeable
        array = np.asarray(given, dtype=dtype) if shared else np.array(given, dtype=dtype)
        if array.shape != shape:
            raise ValueError(f"{name} must be {list(shape)}, got {list(array.shape)}")
        object.__setattr__(self, name, read_only(array))

    @functools.cached_property
    def _lazy(self) -> LazyMasks:
        return LazyMasks(self.image_size, self.mask_logits, self.mask_counts)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """[N, H, W] bool, made on first use and kept: N bytes a pixel of the image."""
        return self._lazy.stacked

    def iter_masks(self) -> Iterator[NDArray[np.bool_]]:
        """Masks [H, W] bool one by one, where all at once would be too much memory."""
        return iter(self._lazy)

    @property
    def merged(self) -> NDArray[np.bool_]:
        """[H, W] bool, the union of all masks."""
        return self._lazy.merged

    @property
    def areas(self) -> NDArray[np.int64]:
        """[N] int64, pixels in each mask."""
        return self._lazy.areas

    @property
    def mask_rle(self) -> list[rle.Rle]:
        """The N masks as COCO run lengths, with `counts` as text."""
        return self._lazy.rle

    @property
    def polygons(self) -> tuple[tuple[Polygon, ...], ...]:
        """The outlines of the N masks along the edges of pixels, a `Polygon` for each connected part.

        A `Polygon` is (exterior, holes), as `shapely.Polygon(*polygon)` takes it: float32 [P, 2] in pixels,
        and a tuple of such rings. COCO's polygons have no holes: `exterior.ravel().tolist()` is one, and
        `mask_rle` is the whole mask.
        """
        return self._lazy.polygons

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Result]:
        """One Result an instance."""
        return (self[position] for position in range(len(self)))

    def __getitem__(self, index: Index) -> Result:
        """The instances at `index` as a Result: an int (one instance), a slice, positions, or N booleans.

        Raises:
            IndexError: a position is out of range, or there are not N booleans.
            TypeError: `index` is none of these.
        """
        rows = rows_of(index, len(self))
        values = self._values()
        values.update(scores=read_only(self.scores[rows]), boxes=read_only(self.boxes[rows]))
        masks = self._lazy.take(rows)
        values.update(mask_logits=masks.logits, mask_counts=masks.packed)
        if self.track_ids is not None:
            values["track_ids"] = read_only(self.track_ids[rows])
        part = Result(**values)
        part.__dict__["_lazy"] = masks
        return part

    def filter(self, *, score: float | None = None, area: int | None = None) -> Result:
        """The instances that pass every limit that is given.

        Args:
            score: keep scores above it.
            area: keep masks of at least so many pixels.
        """
        keep = np.ones(len(self), dtype=np.bool_)
        if score is not None:
            keep &= self.scores > score
        if area is not None:
            keep &= self.areas >= area
        return self[keep]

    def save(self, path: str | Path, image: ImageSource | None = None, *, dim: bool = True) -> Path:
        """Draws the result over its image and writes it: masks, boxes, scores, the instruction.

        Args:
            path: file ending in .png, .jpg or .jpeg. It appears when whole, and replaces what was there.
            image: the image, when the Result does not hold it (read from JSON).
            dim: darken what no mask covers; False leaves its colours as they are and tints masks less.

        Returns:
            The path.

        Raises:
            ValueError: another ending, no image, or one of another size.
            ImageError: `image` cannot be read.
            OSError: the file cannot be written.
        """
        from sam3i_edge.masks import overlay

        overlay.check_path(path)
        pixels = self.image if image is None else load_image(image)
        if pixels is None:
            raise ValueError("this Result does not hold its image (it was read from JSON): pass image=")
        if pixels.shape[:2] != self.image_size:
            raise ValueError(
                f"the result is of an image (H, W) {self.image_size}, this one is {pixels.shape[:2]}: "
                "pass the one that was segmented"
            )
        picture = overlay.draw(
            pixels,
            self.iter_masks(),
            self.boxes,
            self.scores,
            title=self._asked,
            note=" | ".join(
                [self._found(), self.level, f"presence {self.presence:.2f}", self.model, *self.notes]
            ),
            dim=dim,
        )
        return overlay.write(picture, path)

    def to_coco(self, *, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO results, ready for json and pycocotools.

        Args:
            image_id: the image's id in the data set.
            category_id: the category's id there.

        Returns:
            A dict an instance: image_id, category_id, segmentation (RLE, counts as text), area (pixels),
            bbox (x, y, width, height of the mask, not of the detector's box) and score.
        """
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "segmentation": segmentation,
                "area": runs["area"],
                "bbox": [float(side) for side in runs["bbox"]],
                "score": short(score),
            }
            for segmentation, runs, score in zip(self.mask_rle, self._lazy.runs, self.scores, strict=True)
        ]

    def to_supervision(self, *, class_id: int | None = None) -> supervision.Detections:
        """A `supervision.Detections` whose class is the instruction.

        Results of different instructions may be merged, by `Detections.merge` or an `InferenceSlicer`. So
        everything is told for each instance, in `data`: class_name (the instruction; without one "visual",
        the text that stands in for it), level, and presence. `metadata` is empty: it has to be equal in what
        is merged.

        Args:
            class_id: at least 0; None takes a number of 31 bits that follows from the instruction alone.

        Raises:
            ValueError: `class_id` is negative.
            RuntimeUnavailable: supervision is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            raise RuntimeUnavailable(
                f"to_supervision needs {error.name}: {install_hint('supervision')}"
            ) from error
        name = self.instruction or VISUAL
        if class_id is None:
            class_id = zlib.crc32(name.encode("utf-8", "surrogatepass")) >> 1
        if class_id < 0:
            raise ValueError(f"class_id must be at least 0, got {class_id}")
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            mask=self.masks.copy(),
            confidence=self.scores.copy(),
            class_id=np.full(len(self), class_id, dtype=np.int64),
            # supervision says -1 of what is not tracked.
            tracker_id=None if self.track_ids is None else np.where(self.track_ids > 0, self.track_ids, -1),
            data={
                "class_name": np.array([name] * len(self), dtype=np.str_),
                "level": np.array([self.level] * len(self), dtype=np.str_),
                "presence": np.full(len(self), self.presence),
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as plain Python values, as `to_json` writes them."""
        return {
            "image_size": list(self.image_size),
            "instruction": self.instruction,
            "level": self.level,
            "level_chosen_by": self.level_chosen_by,
            "presence": float(self.presence),
            "instances": [
                {"score": short(score), "box": [short(side) for side in box], "mask": mask, **track}
                for score, box, mask, track in zip(
                    self.scores, self.boxes, self.mask_rle, self._tracks(), strict=True
                )
            ],
            "timings_ms": dict(self.timings_ms),
            "device": self.device,
            "runtime": self.runtime,
            "precision": self.precision,
            "model": self.model,
            "threshold": float(self.threshold),
            "truncated": self.truncated,
            "tokens_cut": self.tokens_cut,
            "notes": list(self.notes),
        }

    def _tracks(self) -> list[dict[str, int]]:
        if self.track_ids is None:
            return [{} for _ in self.scores]
        return [{"track_id": int(number)} for number in self.track_ids]

    def to_json(self) -> str:
        """One JSON object on one line; masks are COCO run lengths. The image is not in it."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """Reads what `to_dict` gives; keys that it does not know are ignored.

        Raises:
            ValueError: a key is missing or of the wrong kind, or a mask is not of the image's size.
        """
        read = read_result(data)
        tracks = [one.track_id for one in read.instances if one.track_id is not None]
        plain = read.model_dump(exclude={"instances", "image_size"})
        return cls(
            image_size=(read.image_size[0], read.image_size[1]),
            scores=np.array([one.score for one in read.instances], dtype=np.float32),
            boxes=np.array([one.box for one in read.instances], dtype=np.float32).reshape(-1, 4),
            mask_counts=tuple(one.mask.counts for one in read.instances),
            track_ids=np.array(tracks, dtype=np.int64) if tracks else None,
            **plain,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Result:
        """Reads what `to_json` wrote. Masks and scores come back exactly.

        Raises:
            ValueError: it is not JSON, or no result.
        """
        return cls.from_dict(json.loads(text))

    @property
    def _asked(self) -> str:
        return "(by boxes)" if self.instruction is None else self.instruction

    def _found(self) -> str:
        return f"{len(self)} found" + (", there may be more" if self.truncated else "")

    def __repr__(self) -> str:
        best = f", best {self.scores.max():.2f}" if len(self) else ""
        instruction = self._asked if len(self._asked) <= 60 else self._asked[:59] + "\u2026"
        return (
            f"<Result {instruction!r} ({self.level}): {self._found()}{best}, presence {self.presence:.2f}, "
            f"{self.image_size[1]} x {self.image_size[0]} px>"
        )

    def _values(self) -> dict[str, Any]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**values, "timings_ms": dict(self.timings_ms)}

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, because unpickled arrays are writable; what was made lazily is left out.
        return functools.partial(type(self), **self._values()), ()
