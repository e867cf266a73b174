"""cgF1: how well instances are found where they exist, times how well their absence is told.

Source: the evaluator of SAM3 (classification-gated F1), its formulas and epsilons. For every (image, phrase)
pair predictions are matched one to one with targets, at the greatest summed mask IoU. At each threshold:

    positive micro F1   F1 over all pairs, where false positives count only on pairs that have targets
    IL_MCC              Matthews correlation of "anything predicted" with "anything there", over pairs
    cgF1                their product, averaged over the thresholds
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.evaluate.assignment import linear_assignment
from sam3i_edge.evaluate.metrics import Masks, pairwise_iou

IOU_THRESHOLDS: tuple[float, ...] = tuple(float(t) for t in np.linspace(0.5, 0.95, 10))

_COUNT_EPSILON = 1e-4
_IMAGE_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class PairMatch:
    """One (image, phrase) pair after matching: all that cgF1 needs of it.

    Attributes:
        num_targets: target instances.
        num_predictions: predicted instances.
        ious: IoU of each matched prediction and target, min(num_targets, num_predictions) values.
    """

    num_targets: int
    num_predictions: int
    ious: tuple[float, ...]


def match_pair(predicted: Masks, target: Masks) -> PairMatch:
    """Matches predictions with targets one to one, at the greatest summed IoU.

    Args:
        predicted: [N, H, W] bool, only the instances that are kept (official: score of at least 0.5).
        target: [M, H, W] bool.

    Raises:
        ValueError: a stack is not three-dimensional, or the sizes differ.
        TypeError: a stack is not bool.
    """
    ious = pairwise_iou(predicted, target)
    rows, columns = linear_assignment(-ious)
    return PairMatch(len(target), len(predicted), tuple(ious[rows, columns].tolist()))


@dataclass(frozen=True, slots=True, kw_only=True)
class CgF1:
    """cgF1 and its parts, averaged over the IoU thresholds; 0 to 1, but `il_mcc` and `cgf1` from -1.

    `precision` to `positive_micro_precision` count instances, `il_precision` to `il_mcc` count pairs ("image
    level"). Tuples hold one value for each of `IOU_THRESHOLDS`, in that order.
    """

    cgf1: float
    precision: float
    recall: float
    f1: float
    positive_macro_f1: float
    positive_micro_f1: float
    positive_micro_precision: float
    il_precision: float
    il_recall: float
    il_f1: float
    il_fpr: float
    il_mcc: float
    pairs: int
    true_positives: tuple[int, ...]
    false_positives: tuple[int, ...]
    false_negatives: tuple[int, ...]
    positive_false_positives: tuple[int, ...]
    precision_at: tuple[float, ...]
    recall_at: tuple[float, ...]
    f1_at: tuple[float, ...]
    positive_macro_f1_at: tuple[float, ...]
    positive_micro_f1_at: tuple[float, ...]
    positive_micro_precision_at: tuple[float, ...]
    cgf1_at: tuple[float, ...]

    def to_dict(self) -> dict[str, int | float | list[int] | list[float]]:
        """The same as plain JSON values, with the IoU thresholds."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {"iou_thresholds": list(IOU_THRESHOLDS), **values}


def cgf1(matches: Iterable[PairMatch]) -> CgF1:
    """Computes cgF1 over matched (image, phrase) pairs.

    With no pair that lacks targets the Matthews coefficient is 0, and so is cgF1.

    Raises:
        ValueError: there is no pair.
    """
    every = tuple(matches)
    if not every:
        raise ValueError("cgF1 of no pairs: give at least one (image, phrase) pair")
    targets = np.array([match.num_targets for match in every])[:, None]
    predictions = np.array([match.num_predictions for match in every])[:, None]
    hits = _hits(every)  # [pairs, thresholds]
    there, found = targets > 0, predictions > 0
    wrong, missed = predictions - hits, targets - hits
    tp, fp, fn = hits.sum(axis=0), wrong.sum(axis=0), missed.sum(axis=0)
    positive_fp = (wrong * there).sum(axis=0)
    il_tp, il_fp = int((there & found).sum()), int((found & ~there).sum())
    il_fn, il_tn = int((there & ~found).sum()), int((~there & ~found).sum())

    precision, recall, positive_precision = _ratio(tp, fp), _ratio(tp, fn), _ratio(tp, positive_fp)
    f1 = _f1(precision, recall)
    positive_f1 = _f1(positive_precision, recall)
    local_f1 = _f1(_ratio(hits, wrong), _ratio(hits, missed)) * (there & found)
    macro_f1 = local_f1.sum(axis=0) / max(il_tp, 1)
    il_precision = il_tp / (il_tp + il_fp + _IMAGE_EPSILON)
    il_recall = il_tp / (il_tp + il_fn + _IMAGE_EPSILON)
    margins = float(il_tp + il_fp) * float(il_tp + il_fn) * float(il_tn + il_fp) * float(il_tn + il_fn)
    mcc = (il_tp * il_tn - il_fp * il_fn) / (margins**0.5 + _IMAGE_EPSILON)
    return CgF1(
        cgf1=float((positive_f1 * mcc).mean()),
        precision=float(precision.mean()),
        recall=float(recall.mean()),
        f1=float(f1.mean()),
        positive_macro_f1=float(macro_f1.mean()),
        positive_micro_f1=float(positive_f1.mean()),
        positive_micro_precision=float(positive_precision.mean()),
        il_precision=il_precision,
        il_recall=il_recall,
        il_f1=2 * il_precision * il_recall / (il_precision + il_recall + _IMAGE_EPSILON),
        il_fpr=il_fp / (il_fp + il_tn + _IMAGE_EPSILON),
        il_mcc=mcc,
        pairs=len(every),
        true_positives=tuple(tp.tolist()),
        false_positives=tuple(fp.tolist()),
        false_negatives=tuple(fn.tolist()),
        positive_false_positives=tuple(positive_fp.tolist()),
        precision_at=tuple(precision.tolist()),
        recall_at=tuple(recall.tolist()),
        f1_at=tuple(f1.tolist()),
        positive_macro_f1_at=tuple(macro_f1.tolist()),
        positive_micro_f1_at=tuple(positive_f1.tolist()),
        positive_micro_precision_at=tuple(positive_precision.tolist()),
        cgf1_at=tuple((positive_f1 * mcc).tolist()),
    )


def _hits(matches: tuple[PairMatch, ...]) -> NDArray[np.int64]:
    """How many matched instances of each pair reach each IoU threshold, [pairs, thresholds]."""
    hits = np.zeros((len(matches), len(IOU_THRESHOLDS)), dtype=np.int64)
    pair = np.repeat(np.arange(len(matches)), [len(match.ious) for match in matches])
    ious = np.array([value for match in matches for value in match.ious], dtype=np.float64)
    np.add.at(hits, pair, ious[:, None] >= np.array(IOU_THRESHOLDS))
    return hits


def _ratio(hits: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
    return hits / (hits + others + _COUNT_EPSILON)


def _f1(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * precision * recall / (precision + recall + _COUNT_EPSILON)
