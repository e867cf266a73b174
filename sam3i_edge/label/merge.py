"""What is kept of the results about one picture.

The rule: all instances of all instructions are taken in the order of their scores, the earlier instruction
first where they are equal; one whose mask overlaps that of one that is kept by more than `duplicates` (IoU,
on the detector's grid) is dropped, whatever the two instructions. So a thing has one label, that of the
instruction that is surer of it.

An instruction is uncertain about a picture where a score lies within `margin` of the threshold, on either
side, or where what it found was dropped for another instruction's instance whose score is within `margin`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.masks.iou import mask_iou
from sam3i_edge.result import Result


def merged(
    results: Sequence[Result], *, threshold: float, margin: float, duplicates: float
) -> list[dict[str, Any]]:
    """One entry for each result, as plain values.

    Args:
        results: of one picture, asked at a threshold of `threshold - margin`, with logits.
        threshold: a label's least score; one equal to it is none.
        margin: see above.
        duplicates: see above; 1 keeps all.

    Returns:
        instances: the labels; near: what is not over the threshold; each with score, box and mask as in
        `Result.to_dict`. dropped: how many duplicates. level, truncated: of the result. why: what is
        uncertain, a sentence, or "".
    """
    rows = [(number, row) for number, result in enumerate(results) for row in range(len(result))]
    scores = np.array([results[number].scores[row] for number, row in rows], np.float32)
    labels = [place for place in np.argsort(-scores, kind="stable").tolist() if scores[place] > threshold]
    losers = _losers(results, rows, labels, duplicates)
    entries = []
    for number, result in enumerate(results):
        instances = result.to_dict()["instances"]
        kept: list[dict[str, Any]] = []
        near: list[dict[str, Any]] = []
        close = []
        rivals = []
        for place, (owner, row) in enumerate(rows):
            if owner != number:
                continue
            score = float(scores[place])
            if place in losers:
                winner = losers[place]
                rival = rows[winner][0]
                if rival != number and float(scores[winner]) - score < margin:
                    rivals.append(
                        f"'{results[rival].instruction}' has the same ({scores[winner]:.2f} to {score:.2f})"
                    )
                continue
            (kept if score > threshold else near).append(instances[row])
            if abs(score - threshold) < margin:
                close.append(f"{score:.2f}")
        why = [f"scores near the limit {threshold:.2f}: {', '.join(close)}"] if close else []
        entries.append(
            {
                "instances": kept,
                "near": near,
                "dropped": sum(rows[place][0] == number for place in losers),
                "level": result.level,
                "truncated": result.truncated,
                "why": "; ".join([*why, *rivals]),
            }
        )
    return entries


def _losers(
    results: Sequence[Result], rows: Sequence[tuple[int, int]], order: Sequence[int], duplicates: float
) -> dict[int, int]:
    """Places that are dropped, each with the place that is kept instead."""
    if len(order) < 2:
        return {}
    masks = np.concatenate([_grid(result) for result in results])[order]
    overlap = mask_iou(masks, masks)
    kept: list[int] = []  # positions in the order
    losers: dict[int, int] = {}
    for position, place in enumerate(order):
        over = [other for other in kept if overlap[position, other] > duplicates]
        if over:
            losers[place] = order[over[0]]
        else:
            kept.append(position)
    return losers


def _grid(result: Result) -> NDArray[np.bool_]:
    """The masks on the detector's grid, [N, M * M]."""
    if result.mask_logits is None:
        raise ValueError("duplicates are found on mask_logits, and this Result was read from JSON")
    return (result.mask_logits > 0).reshape(len(result), math.prod(result.mask_logits.shape[1:]))
