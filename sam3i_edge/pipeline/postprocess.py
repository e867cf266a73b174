"""What the detector returns -> what a user asked for: scores, pixel boxes and masks above a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.masks.iou import mask_iou

_T = TypeVar("_T", bound=np.generic)

# Rows are resized in blocks of about this many pixels, so that a mask of 64 megapixels needs no gigabyte.
_BLOCK_PIXELS = 1 << 20
_LARGEST_LOGIT = 1e30


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """The detector's queries above the threshold, best first. Every array is a read-only copy.

    Attributes:
        index: [N] int64, rows of the detector's outputs.
        scores: [N] float32, 0..1.
        boxes: [N, 4] float32, (x0, y0, x1, y1) in pixels of the image, clipped to it.
        mask_logits: [N, M, M] float32; above 0 is inside.
        presence: probability 0..1 that the image holds what was asked for.
        truncated: every query passed, so there may be more objects than the detector can return.
    """

    index: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    mask_logits: NDArray[np.float32]
    presence: float
    truncated: bool


def select(
    scores: NDArray[np.floating],
    boxes: NDArray[np.floating],
    mask_logits: NDArray[np.floating],
    presence_logit: float,
    image_size: tuple[int, int],
    *,
    threshold: float = 0.5,
    mask_threshold: float = 0.0,
    suppress: float | None = None,
) -> Detections:
    """Keeps the queries whose score is above the threshold. Masks are not resized here.

    Args:
        scores: [K], sigmoid(logit) * sigmoid(presence) as the detector computes them.
        boxes: [K, 4], (x0, y0, x1, y1) relative to the image, 0..1.
        mask_logits: [K, M, M].
        presence_logit: logit of "the image holds what was asked for".
        image_size: (H, W) of the image, pixels.
        threshold: 0..1; a score equal to it is not kept.
        mask_threshold: logit above which a pixel belongs to a mask. It is subtracted from the logits.
        suppress: drops a query whose mask has a larger IoU, 0..1, with that of a better one that is kept;
            None drops none, as the official code.

    Returns:
        The kept queries; none is a normal answer.

    Raises:
        ValueError: shapes do not belong together, or `threshold` or `suppress` is not in 0..1.
        RuntimeUnavailable: an output is NaN, infinite or beyond 1e30: the runtime computes wrongly on this
            device, or the weights are damaged.
    """
    count = len(scores)
    if scores.shape != (count,) or boxes.shape != (count, 4) or mask_logits.shape[:-2] != (count,):
        raise ValueError(
            f"scores {scores.shape}, boxes {boxes.shape}, mask_logits {mask_logits.shape}: "
            "want [K], [K, 4] and [K, M, M] (take element 0 of the batch)"
        )
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be 0 to 1, got {threshold}")
    if suppress is not None and not 0 <= suppress <= 1:
        raise ValueError(f"suppress must be 0 to 1, got {suppress}")
    _check_finite("scores", scores)
    _check_finite("presence", np.float64(presence_logit))
    passed = np.flatnonzero(scores > threshold)
    index = passed[np.argsort(-scores[passed], kind="stable")].astype(np.int64)
    _check_finite("boxes", boxes[index])
    kept = mask_logits[index]  # read once: they may lie on a GPU
    shifted = kept.astype(np.float32, copy=False) - np.float32(mask_threshold)
    _check_finite("mask_logits", shifted)
    if suppress is not None:
        distinct = _distinct(shifted > 0, suppress)
        index, shifted = index[distinct], shifted[distinct]
    return Detections(
        index=read_only(index),
        scores=read_only(scores[index].astype(np.float32)),
        boxes=read_only(pixel_boxes(boxes[index], image_size)),
        mask_logits=read_only(shifted),
        presence=sigmoid(presence_logit),
        truncated=0 < count == len(passed),
    )


def _distinct(masks: NDArray[np.bool_], most: float) -> list[int]:
    """Positions of the masks [N, M, M], best first, that overlap no kept one by more than `most`, as IoU."""
    iou, kept = mask_iou(masks, masks), list[int]()
    for number in range(len(masks)):
        if not (iou[number, kept] > most).any():
            kept.append(number)
    return kept


def pixel_boxes(
    boxes: NDArray[np.floating], image_size: tuple[int, int], *, clip: bool = True
) -> NDArray[np.float32]:
    """Relative boxes in pixels.

    The official code does not clip, and its boxes may leave the image by some pixels. Users crop with them,
    so here they are clipped unless asked otherwise.

    Args:
        boxes: [N, 4], (x0, y0, x1, y1), 0..1.
        image_size: (H, W), pixels.
        clip: keep every coordinate within 0..W and 0..H.

    Returns:
        [N, 4] float32, (x0, y0, x1, y1) in pixels; W and H are the outer edges of the last pixels.
    """
    height, width = image_size
    scale = np.array([width, height, width, height], dtype=np.float32)
    pixels: NDArray[np.float32] = boxes.astype(np.float32) * scale
    return np.clip(pixels, 0, scale) if clip else pixels


def resize_mask_logits(
    logits: NDArray[np.float32], size: tuple[int, int], *, threshold: float = 0.0
) -> NDArray[np.bool_]:
    """Masks at the size of the image: logits resized bilinearly, then cut, in the official order.

    Half-pixel centres, edges repeated, no antialiasing (align_corners False). This is the definition that
    `native/src/mask_rle.cpp` repeats operation by operation in float32, so both give the same pixels.

    Args:
        logits: [N, h, w] float32.
        size: (H, W) of the image, pixels.
        threshold: logit above which a pixel is inside.

    Returns:
        [N, H, W] bool. Apart from it, some 20 MB are needed, whatever N and the size of ordinary images.

    Raises:
        ValueError: shape or dtype is wrong, a side is under 1, or a value is NaN, infinite or beyond 1e30.
    """
    height, width = size
    if logits.ndim != 3 or 0 in logits.shape[1:] or logits.dtype != np.float32:
        raise ValueError(f"logits must be float32 [N, h, w], got {logits.dtype} {list(logits.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"the image size must be at least 1 x 1, got {height} x {width}")
    left, right, u = _taps(logits.shape[2], width)
    upper, lower, w = _taps(logits.shape[1], height)
    step = max(1, _BLOCK_PIXELS // width)
    masks = np.zeros((len(logits), height, width), dtype=np.bool_)
    for mask, grid in zip(masks, logits, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            shifted = grid - np.float32(threshold)
        if not (np.abs(shifted) <= _LARGEST_LOGIT).all():
            raise ValueError("logits and threshold must be finite and at most 1e30")
        for start in range(0, height, step):
            rows = slice(start, start + step)
            first, last = upper[start], lower[rows][-1] + 1
            part = shifted[first:last]
            columns = part[:, left] * (1 - u) + part[:, right] * u  # [rows of the grid, W]
            below = w[rows, None]
            value = columns[upper[rows] - first] * (1 - below) + columns[lower[rows] - first] * below
            mask[rows] = value > 0
    return masks


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    return float(0.5 * (1 + np.tanh(0.5 * float(logit))))


def _taps(cells: int, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Per output pixel the two cells it lies between and the weight of the second; see `sam3i.h`.

    Integers until the one division: positions are exact, so every machine gives the same weights.
    """
    numerator = np.maximum((2 * np.arange(pixels, dtype=np.int64) + 1) * cells - pixels, 0)
    first, remainder = np.divmod(numerator, 2 * pixels)
    weight = (remainder / np.float64(2 * pixels)).astype(np.float32)
    return first, np.minimum(first + 1, cells - 1), weight


def _check_finite(name: str, values: NDArray[np.floating] | np.float64) -> None:
    if not (np.abs(values) <= np.float32(_LARGEST_LOGIT)).all():  # nor is NaN
        raise RuntimeUnavailable(
            f"the detector returned {name} that are NaN, infinite or beyond {_LARGEST_LOGIT:g}: this "
            "precision does not compute rightly on this device, or the weights are damaged; try "
            "precision='fp32' or device='cpu'"
        )


def read_only(array: NDArray[_T]) -> NDArray[_T]:
    """The array itself, which can no longer be written to."""
    array.flags.writeable = False
    return array
