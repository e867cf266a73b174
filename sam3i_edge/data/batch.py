"""One training batch: what it holds, and how samples become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam3i_edge.data.instructions import Instruction
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.vocabulary import CATEGORY
from sam3i_edge.levels import LEVELS
from sam3i_edge.pipeline.preprocess import to_pixel_values

Encode = Callable[[str], NDArray[np.int64]]
"""Text to token ids int64 [T], T the slots of the model's text encoder."""


_HALVES = (0.5, 0.5, 0.5)  # mean and deviation of the models that are trained here


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B images, P (image, instruction) pairs and their T targets among O objects.

    Attributes:
        pixel_values: float32 [B, 3, S, S] in -1..1.
        texts: P instructions.
        granularities: P of "one", "subset", "all", "none".
        input_ids: int64 [P, T].
        level: int64 [P], index into `LEVELS` of each instruction's own level.
        image_index: int64 [P], the image of each.
        mask_index: int64 [R], ascending: the pairs for which masks are computed and paid for.
        object_image: int64 [O], the image of each object.
        object_attributes: int64 [O, A], the class of each of the A attributes, as `Batches.classes` counts
            them; -1 where it is not known.
        object_boxes: float32 [O, 4], cxcywh of the visible part in 0..1.
        object_masks: uint8 [O, M, M], the covered share of each cell times 255.
        target_pair: int64 [T], ascending: the pair of each target.
        target_object: int64 [T], its row of the objects.
        aligned: int64 [A, 2], the pairs of a simple and of a complex instruction for the same targets (one at
            least); all of them are in `mask_index`.
        concept_ids: int64 [A, T], the noun of those targets.
    """

    pixel_values: Tensor
    texts: tuple[str, ...]
    granularities: tuple[str, ...]
    input_ids: Tensor
    level: Tensor
    image_index: Tensor
    mask_index: Tensor
    object_image: Tensor
    object_attributes: Tensor
    object_boxes: Tensor
    object_masks: Tensor
    target_pair: Tensor
    target_object: Tensor
    aligned: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.int64))
    concept_ids: Tensor = field(default_factory=lambda: torch.zeros(0, 32, dtype=torch.int64))

    @property
    def target_boxes(self) -> Tensor:
        """Boxes of the targets, float32 [T, 4]."""
        return self.object_boxes[self.target_object]

    def union_masks(self, pairs: Tensor) -> Tensor:
        """The union of all targets of some pairs, float32 [N, M, M] in 0..1; 0 where a pair has none.

        Shares of a cell add up, up to 1: exact where the targets do not overlap, as in drawn scenes.

        Args:
            pairs: int64 [N], no pair twice.
        """
        row = torch.full((len(self.level),), -1, device=pairs.device)
        row[pairs] = torch.arange(len(pairs), device=pairs.device)
        wanted = row[self.target_pair]
        masks = self.object_masks[self.target_object[wanted >= 0]].float() / 255
        union = masks.new_zeros(len(pairs), *self.object_masks.shape[1:])
        return union.index_add_(0, wanted[wanted >= 0], masks).clamp_(max=1.0)

    def to(self, device: torch.device | str) -> Batch:
        """The batch with every tensor on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }
        return Batch(**moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchShape:
    """How much goes into a batch.

    Attributes:
        images: images a batch.
        instructions: instructions an image.
        mask_instructions: of these, how many get masks, drawn at random.
        image_size: side of the model's input, pixels.
        mask_size: side of the masks, cells.
        pairs: two instructions each, a simple and a complex one for the same targets, that an image begins
            with; they always get masks.
    """

    images: int = 8
    instructions: int = 6
    mask_instructions: int = 2
    image_size: int = 160
    mask_size: int = 40
    pairs: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "instructions", "mask_instructions", "image_size", "mask_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.mask_instructions > self.instructions:
            raise ValueError(
                f"mask_instructions must be at most instructions, got {self.mask_instructions} of "
                f"{self.instructions}"
            )
        if not 0 <= 2 * self.pairs <= self.mask_instructions:
            raise ValueError(
                f"pairs must be 0 to {self.mask_instructions // 2}, half of mask_instructions, "
                f"got {self.pairs}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image before it is resized.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        masks: bool [N, H, W], the visible part of every object; none empty.
        boxes: float32 [N, 4], cxcywh in 0..1.
        attributes: int64 [N, A], as in `Batch.object_attributes`.
        instructions: what is asked, with targets as rows of `masks`.
        concepts: the nouns of the pairs that `instructions` begins with, each a simple and a complex one for
            the same targets.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    attributes: NDArray[np.int64]
    instructions: tuple[Instruction, ...]
    concepts: tuple[str, ...] = ()


def from_scene(
    scene: Scene,
    classes: Mapping[str, tuple[str, ...]],
    instructions: tuple[Instruction, ...],
    concepts: tuple[str, ...],
) -> Sample:
    """What a batch takes of a scene: its picture, which is read where it is in a file, and its objects.

    Args:
        scene: with masks, none of them empty.
        classes: as in `Batches`.
        instructions: as in `Sample`.
        concepts: likewise.
    """
    known = [{CATEGORY: item.category, **item.attributes} for item in scene.objects]
    return Sample(
        image=scene.pixels(),
        masks=scene.masks,
        boxes=relative_boxes([item.box for item in scene.objects], *scene.size),
        attributes=class_numbers(known, classes),
        instructions=instructions,
        concepts=concepts,
    )


def class_numbers(
    known: Sequence[Mapping[str, str | None]], classes: Mapping[str, tuple[str, ...]]
) -> NDArray[np.int64]:
    """The classes of N objects, int64 [N, A]; -1 where a value is not known or is none of the classes.

    Args:
        known: each object's values by attribute.
        classes: attribute -> its classes.
    """
    numbers = {
        attribute: {name: number for number, name in enumerate(names)} for attribute, names in classes.items()
    }
    rows = [[numbers[name].get(values.get(name) or "", -1) for name in classes] for values in known]
    return np.array(rows, np.int64).reshape(-1, len(classes))


def relative_boxes(
    boxes: Sequence[tuple[float, float, float, float]], height: int, width: int
) -> NDArray[np.float32]:
    """(x0, y0, x1, y1) px of N boxes to float32 [N, 4], cxcywh in 0..1."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    corners /= np.array([width, height, width, height], np.float32)
    return centre_boxes(corners)


def centre_boxes(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    """(x0, y0, x1, y1) to (cx, cy, w, h), [N, 4]."""
    low, high = corners[:, :2], corners[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def mask_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Boxes around masks [N, H, W], none of them empty: float32 [N, 4], cxcywh in 0..1."""
    height, width = masks.shape[1:]
    corners = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(corners, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[:] = columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
    return centre_boxes(corners)


def assemble(
    samples: Sequence[Sample], shape: BatchShape, encode: Encode, rng: np.random.Generator, *, augment: bool
) -> Batch:
    """Puts samples with `shape.instructions` instructions each into one batch.

    Args:
        samples: the images.
        shape: sizes of the batch.
        encode: text to token ids int64 [32].
        rng: chooses the pairs that get masks and, with `augment`, the resizing filter.
        augment: vary the filter that shrinks the image.
    """
    pixels = np.stack([_pixel_values(s.image, shape.image_size, rng if augment else None) for s in samples])
    objects = np.concatenate([[0], np.cumsum([len(s.masks) for s in samples])])
    masks = [shrink_mask(mask, shape.mask_size) for s in samples for mask in s.masks]
    asked = [(i, instruction) for i, s in enumerate(samples) for instruction in s.instructions]
    pairs = [p for p, (_, instruction) in enumerate(asked) for _ in instruction.targets]
    targets = [int(objects[i]) + t for i, instruction in asked for t in instruction.targets]
    first = np.cumsum([0] + [len(s.instructions) for s in samples])
    shown = [start + _shown(s, shape, rng) for start, s in zip(first[:-1], samples, strict=True)]
    aligned = [
        int(start) + 2 * i
        for start, s in zip(first[:-1], samples, strict=True)
        for i in range(len(s.concepts))
    ]
    ids = np.stack([encode(instruction.text) for _, instruction in asked])
    concepts = [encode(concept) for s in samples for concept in s.concepts]
    return Batch(
        pixel_values=torch.from_numpy(pixels),
        texts=tuple(instruction.text for _, instruction in asked),
        granularities=tuple(instruction.granularity for _, instruction in asked),
        input_ids=torch.from_numpy(ids),
        level=torch.tensor([LEVELS.index(instruction.level) for _, instruction in asked]),
        image_index=torch.tensor([i for i, _ in asked]),
        mask_index=torch.from_numpy(np.concatenate(shown)),
        object_image=torch.tensor([i for i, s in enumerate(samples) for _ in s.masks], dtype=torch.int64),
        object_attributes=torch.from_numpy(np.concatenate([s.attributes for s in samples])),
        object_boxes=torch.from_numpy(np.concatenate([s.boxes for s in samples])),
        object_masks=torch.from_numpy(np.stack(masks))
        if masks
        else torch.zeros(0, shape.mask_size, shape.mask_size, dtype=torch.uint8),
        target_pair=torch.tensor(pairs, dtype=torch.int64),
        target_object=torch.tensor(targets, dtype=torch.int64),
        aligned=torch.tensor(aligned, dtype=torch.int64)[:, None] + torch.arange(2),
        concept_ids=torch.from_numpy(np.array(concepts, np.int64).reshape(-1, ids.shape[1])),
    )


def _shown(sample: Sample, shape: BatchShape, rng: np.random.Generator) -> NDArray[np.int64]:
    """The instructions of a sample that get masks: its pairs, and others at random; ascending."""
    paired = 2 * len(sample.concepts)
    others = len(sample.instructions) - paired
    drawn = rng.choice(others, min(shape.mask_instructions - paired, others), replace=False)
    return np.concatenate([np.arange(paired), paired + np.sort(drawn)])


def shrink_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.uint8]:
    """The share of each of size x size cells that a mask [H, W] covers, times 255."""
    full = mask.view(np.uint8) * np.uint8(255)
    return cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _pixel_values(
    image: NDArray[np.uint8], size: int, rng: np.random.Generator | None
) -> NDArray[np.float32]:
    """What inference makes of an image, float32 [3, S, S]; with `rng` sometimes by another filter."""
    if rng is not None and rng.random() < 0.4:
        # Users' images were resized before by filters of all kinds; aliasing ones only where little is lost.
        filters = [cv2.INTER_AREA, cv2.INTER_CUBIC, cv2.INTER_LINEAR]
        if max(image.shape[:2]) > 2 * size:
            filters = [cv2.INTER_AREA]
        image = cv2.resize(image, (size, size), interpolation=filters[rng.integers(len(filters))])  # type: ignore[assignment]
    values: NDArray[np.float32] = to_pixel_values(image, size, _HALVES, _HALVES)[0]
    return values
