"""The agreement gate: an exported variant against the float model, on whole results.

Cosine of embeddings is no gate: 0.9997 went with a mask IoU of 0.39 elsewhere. What counts is what a user
gets: how many instances, which pixels, which scores, which boxes. Instances are matched by mask IoU, never by
rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.instructions import Granularity, write_instruction
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import ExportError, ParityError
from sam3i_edge.evaluate.assignment import linear_assignment
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.masks.iou import mask_iou
from sam3i_edge.pipeline import ask
from sam3i_edge.pipeline.postprocess import resize_mask_logits
from sam3i_edge.pipeline.prompt import BoxPrompt

if TYPE_CHECKING:
    from sam3i_edge.model.config import ModelConfig

SMALL_AREA = (
    64  # px²: below it one boundary pixel moves IoU by several percent, so such instances are reported apart
)
# First words of the seed of every gate's scenes; training and evaluation draw from other sequences.
_SEED = (0x9A7E, 2026)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a precision must keep.

    Attributes:
        same_count: least share of pairs with as many instances as the reference, 0..1.
        mean_iou, min_iou: of the masks of matched instances.
        score: most difference, or None where it is only reported.
        box_px: most difference of a corner, pixels, or None.
        share: of the instances that must keep `score` and `box_px`; 1 means every one. Below 1 the greatest
            differences are reported beside (docs/adr/0008).
    """

    same_count: float
    mean_iou: float
    min_iou: float
    score: float | None
    box_px: float | None
    share: float = 1.0


_MOST = 0.99

LIMITS: dict[str, Limits] = {
    "fp32": Limits(same_count=1.0, mean_iou=0.9999, min_iou=0.995, score=0.001, box_px=0.5),
    "fp16": Limits(same_count=0.99, mean_iou=0.99, min_iou=0.95, score=0.01, box_px=1.0),
    "int8": Limits(same_count=0.98, mean_iou=0.98, min_iou=0.85, score=0.05, box_px=2.0, share=_MOST),
    "int8w": Limits(same_count=0.98, mean_iou=0.98, min_iou=0.85, score=0.05, box_px=2.0, share=_MOST),
    "mixed": Limits(same_count=0.98, mean_iou=0.98, min_iou=0.85, score=0.05, box_px=2.0, share=_MOST),
    "int8-bf16": Limits(same_count=0.98, mean_iou=0.98, min_iou=0.85, score=0.05, box_px=2.0, share=_MOST),
    "mixed-bf16": Limits(same_count=0.98, mean_iou=0.98, min_iou=0.85, score=0.05, box_px=2.0, share=_MOST),
    "int4": Limits(same_count=0.95, mean_iou=0.95, min_iou=0.70, score=None, box_px=None),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """One (image, instruction) pair.

    Attributes:
        image: uint8 [H, W, 3]. Consecutive pairs may share it.
        text: the instruction.
        level: its level.
        granularity: "one", "subset", "all" or "none" (nothing to find).
        boxes: asked beside the text, or None.
    """

    image: NDArray[np.uint8]
    text: str
    level: Level
    granularity: Granularity
    boxes: BoxPrompt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """What one pair gave: scores [N], boxes [N, 4] px, masks bool [N, H, W]."""

    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    masks: NDArray[np.bool_]

    @classmethod
    def of(cls, outputs: ask.Arrays, image_size: tuple[int, int], threshold: float) -> Instances:
        """What the detector's outputs hold above a threshold, in an image of (H, W) pixels."""
        found = ask.find(outputs, image_size, threshold=threshold)
        masks = resize_mask_logits(found.mask_logits, image_size)
        return cls(scores=found.scores, boxes=found.boxes, masks=masks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A variant beside the float model.

    Attributes:
        pairs: compared (image, instruction) pairs; none: of these, where the reference kept nothing.
        instances: matched instances of at least 64 px²; small_instances: matched ones below, left out of the
            rest.
        same_count: share of pairs with equally many instances, 0..1.
        mean_iou, min_iou: mask IoU of the matched.
        score, box_px: largest differences of the matched; score_p99, box_px_p99: what 99 % of them keep.
        small_min_iou: least mask IoU of the small ones, 1 when there are none.
    """

    pairs: int
    none: int
    instances: int
    small_instances: int
    same_count: float
    mean_iou: float
    min_iou: float
    score: float
    box_px: float
    score_p99: float
    box_px_p99: float
    small_min_iou: float

    def __str__(self) -> str:
        """The figures on one line, for people."""
        return (
            f"{self.pairs} pairs: same count {self.same_count:.3f}, mask IoU mean {self.mean_iou:.5f} "
            f"min {self.min_iou:.5f}, score {self.score:.1e} (99 %: {self.score_p99:.1e}), "
            f"box {self.box_px:.3f} px (99 %: {self.box_px_p99:.3f})"
        )

    def to_dict(self) -> dict[str, float]:
        """For the manifest."""
        return {name: float(value) for name, value in asdict(self).items()}


def drawn_pairs(count: int, seed: int = 0, *, boxes: int = 0) -> list[Pair]:
    """Pairs of drawn scenes: all levels and granularities in turn, a fifth of them with nothing to find.

    With `boxes` every other pair that has something to find also has 1 to `boxes` of them: around a target,
    then around something else (negative), and so on.
    """
    order: tuple[Granularity, ...] = ("one", "all", "none", "subset", "one")
    kinds = [(level, kind) for kind in order for level in LEVELS]
    pairs: list[Pair] = []
    vocabulary = load_vocabulary("shapes")
    number = 0
    while len(pairs) < count:
        rng = np.random.default_rng((*_SEED, seed, number))
        number += 1
        scene = draw_scene(rng)
        for offset in range(5):  # a few instructions an image, as users ask
            level, kind = kinds[(len(pairs) + offset) % len(kinds)]
            written = write_instruction(scene, vocabulary, rng, level, kind)
            if written is not None and len(pairs) < count:
                shown = None
                if boxes and written.targets and len(pairs) % 2:
                    shown = _boxes_of(scene, written.targets, 1 + len(pairs) // 2 % boxes)
                pairs.append(Pair(scene.pixels(), written.text, level, written.granularity, shown))
    return pairs


def model_pairs(count: int, config: ModelConfig, boxes: int = 0, seed: int = 0) -> list[Pair]:
    """Drawn pairs that a model of this config can be asked; see `drawn_pairs`."""
    pairs = drawn_pairs(count, seed, boxes=boxes)
    return pairs if config.adapter_dim else [replace(pair, level="concept") for pair in pairs]


def _boxes_of(scene: Scene, targets: Sequence[int], most: int) -> BoxPrompt:
    others = [number for number in range(len(scene.objects)) if number not in targets]
    order = [number for pair in zip_longest(targets, others) for number in pair if number is not None][:most]
    return BoxPrompt.of([scene.objects[number].box for number in order], [n in targets for n in order])


def compare(reference: Sequence[Instances], candidate: Sequence[Instances]) -> Agreement:
    """Matches instances pair by pair by mask IoU and sums up.

    Raises:
        ExportError: the reference kept no instance at all: such a gate would pass anything.
    """
    if not any(len(r.scores) for r in reference):
        raise ExportError(
            f"the float model kept no instance in {len(reference)} pairs, so nothing can be compared: "
            "lower the threshold, or export a trained model"
        )
    ious: list[float] = []
    small: list[float] = []
    scores: list[float] = []
    boxes: list[float] = []
    same = 0
    for want, got in zip(reference, candidate, strict=True):
        same += len(want.scores) == len(got.scores)
        if not len(want.scores) or not len(got.scores):
            continue
        overlap = mask_iou(want.masks, got.masks, empty=1.0)
        for i, j in zip(*linear_assignment(-overlap), strict=True):
            if want.masks[i].sum() < SMALL_AREA:
                small.append(float(overlap[i, j]))
                continue
            ious.append(float(overlap[i, j]))
            scores.append(abs(float(want.scores[i] - got.scores[j])))
            boxes.append(float(np.abs(want.boxes[i] - got.boxes[j]).max()))
    return Agreement(
        pairs=len(reference),
        none=sum(not len(r.scores) for r in reference),
        instances=len(ious),
        small_instances=len(small),
        same_count=same / len(reference),
        mean_iou=float(np.mean(ious)) if ious else 0.0,
        min_iou=min(ious, default=0.0),
        score=max(scores, default=0.0),
        box_px=max(boxes, default=0.0),
        score_p99=float(np.quantile(scores, _MOST)) if scores else 0.0,
        box_px_p99=float(np.quantile(boxes, _MOST)) if boxes else 0.0,
        small_min_iou=min(small, default=1.0),
    )


def pair_quality(want: Instances, got: Instances) -> float:
    """Sum of the matched instances' IoU over the larger number of instances; 1 where neither has one."""
    most = max(len(want.scores), len(got.scores))
    if not most:
        return 1.0
    if not len(want.scores) or not len(got.scores):
        return 0.0
    overlap = mask_iou(want.masks, got.masks, empty=1.0)
    return float(overlap[linear_assignment(-overlap)].sum()) / most


def quality(reference: Sequence[Instances], candidate: Sequence[Instances]) -> float:
    """Mean of `pair_quality`, 0..1: one figure that falls with lost instances and with worse masks."""
    return float(np.mean([pair_quality(a, b) for a, b in zip(reference, candidate, strict=True)]))


def check(agreement: Agreement, precision: str) -> None:
    """Refuses a variant that does not agree.

    Raises:
        ParityError: the first limit that is missed.
        ValueError: no limits are known for the precision.
    """
    if precision not in LIMITS:
        raise ValueError(f"no agreement limits for precision {precision!r}; known: {', '.join(LIMITS)}")
    limits = LIMITS[precision]
    for name, least in (
        ("same_count", limits.same_count),
        ("mean_iou", limits.mean_iou),
        ("min_iou", limits.min_iou),
    ):
        value = getattr(agreement, name)
        if value < least:
            raise ParityError(f"{precision}: 1 - {name}", 1 - value, 1 - least)
    suffix = "" if limits.share == 1 else "_p99"
    for name, most in ((f"score{suffix}", limits.score), (f"box_px{suffix}", limits.box_px)):
        value = getattr(agreement, name)
        if most is not None and value > most:
            raise ParityError(f"{precision}: {name}", value, most)
